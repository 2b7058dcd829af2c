"""A full disk is noticed, and the logs say that lines may be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.containers.logs import parse
from agent.disk_watch import LOW_BYTES, DiskWatch, Room

ROOM, FULL, NO_INODES = Room(1 << 30, 1000), Room(LOW_BYTES - 1, 1000), Room(1 << 30, 0)


def test_what_is_said_of_a_disk() -> None:
    path = Path("/var/lib/pystack")
    assert ROOM.problem(path) == ""
    assert Room(1 << 30, None).problem(path) == ""
    assert "is full: 63 KiB are left" in FULL.problem(path)
    assert "can have 0 files more" in NO_INODES.problem(path)
    assert Room.at(Path("/")).bytes > 0


@pytest.mark.parametrize("torn", [False, True])
def test_a_log_tells_of_the_gap_and_no_line_is_glued_to_another(tmp_path: Path, torn: bool) -> None:
    path, changes = tmp_path / "log", []
    path.write_bytes(b"2026-01-01T00:00:00.000000000Z stdout F whole\n" + b"2026-01-01T00:00:01.000000000Z stdout F ha" * torn)
    watch = DiskWatch(tmp_path, lambda: changes.append(watch.problem), lambda: [path, tmp_path / "none"])
    for room in (ROOM, FULL, FULL, ROOM, ROOM):
        watch.look(room)
    assert len(changes) == 2
    assert "is full" in changes[0]
    assert changes[1] == ""
    with path.open("ab") as file:
        file.write(b"2026-01-01T00:00:09.000000000Z stdout F next\n")
    lines = [line for raw in path.read_bytes().splitlines(keepends=True) if (line := parse(raw))]
    texts = [line.text for line in lines]
    assert texts[0] == b"whole\n"
    assert texts[-1] == b"next\n"
    assert b"lines may be missing here\n" in texts[-2]
    assert len(texts) == 3 + torn
