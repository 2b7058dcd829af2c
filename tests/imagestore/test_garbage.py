"""What garbage collection takes: nothing that is used, and of the rest what lay unused for too long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.images import archive, garbage
from agent.images.store import ImageStore
from agent.paths import Paths
from agent.settings import ImageGc
from tests.images import archive as write_archive
from tests.images import tar_of

NOW = 1_800_000_000.0
HOUR = 3600


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    if os.geteuid() != 0:
        pytest.skip("layers are unpacked in a chroot")
    made = ImageStore(Paths(tmp_path, tmp_path / "run", "t"))
    for number, name in enumerate(("old", "middle", "new")):
        write_archive(tmp_path / "image.tar", [tar_of({"is": name.encode()})], name=f"docker.io/library/{name}:latest")
        await archive.load(made, tmp_path / "image.tar")
        digest = made.find(name).digest
        made.mark_used(digest)
        at = NOW - (3 - number) * 100 * HOUR
        os.utime(tmp_path / "images" / "used" / digest[7:], (at, at))
    return made


def names(store: ImageStore) -> set[str]:
    return {n.rpartition("/")[2].partition(":")[0] for i in store.everything() for n in i.names}


async def test_what_was_unused_for_too_long_goes(store: ImageStore) -> None:
    gone = garbage.collect(store, ImageGc(age="150h"), NOW)
    assert names(store) == {"new"}
    assert len(gone) == 2
    assert len(list(store.layers.iterdir())) == 1


async def test_what_a_container_uses_stays_however_old(store: ImageStore) -> None:
    used = store.find("old").digest
    store.users = lambda: {used}
    garbage.collect(store, ImageGc(age="1h", disk=1), NOW)
    assert names(store) == {"old"}


async def test_a_full_disk_takes_the_longest_unused_first(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    full = iter([90.0, 90.0, 79.0])
    monkeypatch.setattr(garbage, "used_percent", lambda _: next(full))
    garbage.collect(store, ImageGc(disk=85), NOW)
    assert names(store) == {"middle", "new"}


@pytest.mark.parametrize(("age", "disk"), [("soon", 0), ("1", 0), ("", 101)])
def test_a_rule_that_is_none_is_refused(age: str, disk: int) -> None:
    with pytest.raises(ValueError, match="image_gc"):
        ImageGc(age=age, disk=disk)
