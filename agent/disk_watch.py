"""Notices when the disk of this node's state is full, and when there is room again.

On a full disk conmon drops what containers write: nobody can keep it, but the logs can say that something is missing, and the
node can say that its disk is full before anything is asked of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from agent.contract import times

EVERY_S = 1.0
LOW_BYTES, LOW_INODES = 64 << 10, 16
"""A disk with less than that left is full: a write of a few pages fails."""
log = logging.getLogger(__name__)


class Room(msgspec.Struct, frozen=True):
    """What is left on a disk of *total* bytes: *bytes* and *inodes*; a file system without a table of inodes has None."""

    bytes: int
    inodes: int | None
    total: int = 0

    @classmethod
    def at(cls, path: Path) -> Room:
        """Raises OSError. Source: statvfs(3); f_files is 0 where there is no such table (Btrfs)."""
        found = os.statvfs(path)
        inodes = found.f_favail if found.f_files else None
        return cls(found.f_bavail * found.f_frsize, inodes, found.f_blocks * found.f_frsize)

    def problem(self, path: Path) -> str:
        """Why nothing can be written at *path*, "" if there is room."""
        if self.bytes < LOW_BYTES:
            return f"the disk of {path} is full: {self.bytes >> 10} KiB are left: make room"
        if self.inodes is not None and self.inodes < LOW_INODES:
            return f"the disk of {path} can have {self.inodes} files more: delete some"
        return ""


class DiskWatch:
    """Looks at the disk of *path*. *changed* is called when it is full, and when it is not any more; *logs* gives the logs that
    are written, each of which then gets a line that tells of it."""

    def __init__(self, path: Path, changed: Callable[[], None], logs: Callable[[], Iterable[Path]]) -> None:
        self.problem = ""
        """Why nothing can be written, "" if there is room."""
        self._path = path
        self._changed = changed
        self._logs = logs
        self._full_since = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look_now()
            await asyncio.sleep(EVERY_S)

    def look_now(self) -> None:
        """Look, and act on what is left. Raises OSError."""
        self.look(Room.at(self._path))

    def look(self, room: Room) -> None:
        """Act on what is left."""
        now, before, self.problem = timestamp(), self.problem, room.problem(self._path)
        if bool(before) == bool(self.problem):
            return
        if self.problem:
            self._full_since = now
            log.warning("%s", self.problem)
        else:
            log.warning("the disk of %s has room again", self._path)
            for path in self._logs():
                report_gap(path, self._full_since, now)
        self._changed()


def timestamp() -> str:
    """Now, as conmon writes it."""
    return f"{times.timestamp().removesuffix('Z')}000Z"


def report_gap(path: Path, since: str, now: str) -> None:
    """Add a line to the log at *path*: output from *since* on may be missing. A line of which only half could be written ends
    before it. conmon appends, so that one write of another process never mixes with its own."""
    text = f"{now} stderr F pystack: the disk was full from {since[:19]}Z to {now[:19]}Z: lines may be missing here\n"
    try:
        with path.open("rb") as file:
            torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(handle, (b"\n" if torn else b"") + text.encode())
        finally:
            os.close(handle)
    except OSError as error:  # there was no log, or the disk is full once more
        log.warning("%s: %s", path, error)
