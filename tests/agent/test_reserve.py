"""What a node keeps for itself: settings, who is evicted, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from agent.disk_watch import Room
from agent.reserve import DiskReserve, size_of, worst
from agent.settings import ReserveSettings

MIB = 1 << 20


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({}, {"a": 100 * MIB}, ("", 0)),
        ({"a": 100 * MIB, "b": 0}, {"a": 100 * MIB, "b": 5 * MIB}, ("b", 5 * MIB)),
        ({"a": 0, "b": 0}, {"a": 7 * MIB, "b": 5 * MIB, "c": 99 * MIB}, ("a", 7 * MIB)),
        ({"a": 9 * MIB}, {"a": 8 * MIB}, ("", 0)),
        ({"a": 9 * MIB}, {"a": 9 * MIB + 4096}, ("", 0)),
    ],
    ids=["first look", "the large one is still", "the one that grew most", "one that shrank", "a few pages do not count"],
)
def test_who_wrote_most(before: dict[str, int], now: dict[str, int], found: tuple[str, int]) -> None:
    assert worst(before, now) == found


@pytest.mark.parametrize(("text", "total", "kept"), [("5%", 1000, 50), ("2.5%", 1000, 25), ("1g", 0, 1 << 30), ("", 9, 0)])
def test_how_much_of_a_disk(text: str, total: int, kept: int) -> None:
    assert ReserveSettings(disk=text).disk_bytes(total) == kept


@pytest.mark.parametrize("given", [{"disk": "100%"}, {"disk": "x"}, {"memory": "5%"}, {"memory": "0"}, {"cpu": "1"}])
def test_wrong_settings(given: dict[str, str]) -> None:
    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert(given, ReserveSettings)


def test_one_that_writes_is_evicted_and_one_that_does_not_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "still").mkdir()
    (tmp_path / "still" / "file").write_bytes(b"x" * 4 * MIB)
    evicted, changes = [], []

    async def evict(ident: str, reason: str) -> None:
        evicted.append((ident, reason))

    async def run() -> None:
        folders = {"still": [tmp_path / "still"], "writer": [tmp_path / "writer"]}
        reserve = DiskReserve(tmp_path, lambda total: total // 10, lambda: folders, evict, lambda: changes.append(0))
        roomy, low = Room(50 * MIB, None, 100 * MIB), Room(5 * MIB, None, 100 * MIB)
        await reserve.look(roomy)
        assert reserve.problem == ""
        await reserve.look(low)
        assert "less left than its reserve of 10 MiB" in reserve.problem
        assert not evicted
        (tmp_path / "writer").mkdir()
        (tmp_path / "writer" / "file").write_bytes(b"x" * 3 * MIB)
        await reserve.look(low)
        await reserve.look(low)
        assert [e[0] for e in evicted] == ["writer"]
        assert evicted[0][1].startswith("evicted: it wrote 3 MiB while the disk of")
        await reserve.look(roomy)
        assert reserve.problem == ""
        assert len(changes) == 2

    asyncio.run(run())


def test_what_files_take(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x" * MIB)
    (tmp_path / "link").symlink_to("/")
    assert MIB <= size_of([tmp_path, tmp_path / "none"]) < 2 * MIB
