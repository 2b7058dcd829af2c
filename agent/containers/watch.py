"""inotify(7): waits for a directory to change, or for the next write to one of many files."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

from agent import descriptors
from netplugins.linux.syscalls import libc
from netplugins.linux.uapi import IN_CREATE, IN_DELETE_SELF, IN_MODIFY, IN_MOVE_SELF, IN_MOVED_TO, IN_ONESHOT

EVENT = struct.Struct("=iIII")
SAFETY_S = 1.0


class FolderWatch:
    """Use as a context manager. A folder that cannot be watched (the host's limit of watches) is polled."""

    def __init__(self, folder: Path) -> None:
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF
        self._watched = self._fd >= 0 and libc.inotify_add_watch(self._fd, str(folder).encode(), mask) >= 0

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    async def changed(self) -> None:
        """Return when something in the folder has changed since the last call, or after a second."""
        if not self._watched:
            await asyncio.sleep(0.05)
            return
        try:
            async with asyncio.timeout(SAFETY_S):
                await descriptors.wait_readable(self._fd)
            os.read(self._fd, 1 << 16)
        except (TimeoutError, BlockingIOError):
            pass


class InotifyOneshot:
    """Each file that was armed rings once, at the next write to it: however much is written, it costs one event."""

    def __init__(self) -> None:
        self.fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)

    def arm(self, file: Path) -> int | None:
        """The number of the watch, None if the file cannot be watched (the host's limits)."""
        if self.fd < 0:
            return None
        number: int = libc.inotify_add_watch(self.fd, str(file).encode(), IN_MODIFY | IN_ONESHOT)
        return number if number >= 0 else None

    def rung(self) -> set[int]:
        """Which have rung since the last call."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return set()
        out, at = set(), 0
        while at < len(data):
            number, mask, _, length = EVENT.unpack_from(data, at)
            at += EVENT.size + length
            if mask & IN_MODIFY:
                out.add(number)
        return out

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
