"""A disk that is full at whichever write: said in one line, nothing half done, and all is well once there is room."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.images import archive, tar_of
from tests.kernel.test_crash import STACK, leftovers

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(1, disk="256m") as pystack:
        yield pystack


def fault(lab: Pystack, *words: str) -> None:
    lab("lab", "fault", "--name", lab.lab, *words)


def test_an_up_at_every_fill(lab: Pystack, stack: Stack) -> None:
    """Each step leaves room for a few writes more; from some on the whole `up` has room."""
    stack.write(STACK)
    went_well = 0
    for free in [*range(0, 192 << 10, 24 << 10), 1 << 20]:
        fault(lab, "fill-disk", "n1", str(free))
        try:
            done = stack.run("up", check=False)
            if done.returncode:
                assert "is full" in done.stderr, done.stderr
                assert "make room" in done.stderr
            went_well += done.returncode == 0
            stack.ps()  # looking works on a full disk
        finally:
            fault(lab, "heal")
        stack.run("up")
        assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
        assert stack.exec("a", "cat", "/srv/hello") == "hello from the image\n"
        stack.down()

        def clean() -> None:
            assert not any(leftovers(lab).values()), leftovers(lab)

        eventually(clean, 5)
    assert 0 < went_well < 8


def test_images_networks_volumes_and_secrets(lab: Pystack, tmp_path: Path) -> None:
    layers = [tar_of({"a": os.urandom(3 << 20)}), tar_of({"b": b"2"})]
    tar = archive(tmp_path / "i.tar", layers, name="docker.io/library/large:1")
    root = Path(lab.environment["PYSTACK_ROOT"])
    (tmp_path / "secret").write_text("x")
    orders = {
        "image": (("image", "load", "-i", str(tar)), ("image", "rm", "large:1")),
        "network": (("network", "create", "full"), ("network", "rm", "full")),
        "volume": (("volume", "create", "full"), ("volume", "rm", "full")),
        "secret": (("secret", "create", "full", str(tmp_path / "secret")), ("secret", "rm", "full")),
    }
    for free in (0, 4096, 1 << 20):
        for kind, (make, unmake) in orders.items():
            before = lab(kind, "ls").stdout
            fault(lab, "fill-disk", "n1", str(free))
            try:
                done = lab(*make, check=False)
            finally:
                fault(lab, "heal")
            if done.returncode:
                assert "is full" in done.stderr, kind
                assert lab(kind, "ls").stdout == before, kind
                lab(*make)
            lab(*unmake)
    assert not list(root.rglob("*.tmp"))
    assert not list(root.rglob(".*.tmp"))


def test_a_server_starts_and_containers_run_on_a_full_disk(lab: Pystack, stack: Stack) -> None:
    stack.up(STACK)
    ids = {name: row["id"] for name, row in stack.ps().items()}
    manifest = Path(lab.environment["PYSTACK_ROOT"]) / "manifest.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    fault(lab, "fill-disk", "n1")
    try:
        fault(lab, "kill", "n1", "server")

        def back() -> None:
            assert {name: row["id"] for name, row in stack.ps().items()} == ids

        eventually(back, 20)
        assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
        assert hashlib.sha256(manifest.read_bytes()).hexdigest() == digest
        done = stack.run("stop", check=False)  # what must be written is refused, or fits in what the ballast gave back
        assert done.returncode == 0 or "is full" in done.stderr
    finally:
        fault(lab, "heal")
    stack.run("up")
    stack.down()
