"""inotify(7): waits for a directory to change, or for the next write to one of many files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from pathlib import Path

from netplugins.linux.syscalls import libc
from netplugins.linux.uapi import (
    IN_CREATE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_TO,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
)

EVENT = struct.Struct("=iIII")
SAFETY_S = 60.0
UNWATCHED_S = 0.25
"""How often a folder is looked at that cannot be watched."""
FOLDER = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF


class _Folders:
    """The one inotify descriptor for all folders: a host gives a user few of them (fs.inotify.max_user_instances, 128), and
    many watches on each."""

    def __init__(self) -> None:
        self._fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watches: dict[int, set[FolderWatch]] = {}

    def add(self, watch: FolderWatch) -> int:
        """The number of the watch of its folder, -1 if it cannot be watched."""
        if self._fd < 0:
            self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if self._fd < 0:
                return -1
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._ring)
        number: int = libc.inotify_add_watch(self._fd, str(watch.folder).encode(), FOLDER)
        if number >= 0:
            self._watches.setdefault(number, set()).add(watch)  # of one folder all have the same number
        self._close_if_idle()
        return number

    def drop(self, watch: FolderWatch) -> None:
        """End the watch."""
        if (of_folder := self._watches.get(watch.number)) is not None:
            of_folder.discard(watch)
            if not of_folder:
                del self._watches[watch.number]
                libc.inotify_rm_watch(self._fd, watch.number)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._fd >= 0 and not self._watches:
            assert self._loop
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, length = EVENT.unpack_from(data, at)
            at += EVENT.size + length
            # some were lost, so that it may be any; or the folder is gone, and its number is another's soon
            rung = [w for of in self._watches.values() for w in of] if mask & IN_Q_OVERFLOW else self._watches.get(number, ())
            for watch in rung:
                watch.ring()
            if mask & IN_IGNORED:
                for watch in self._watches.pop(number, ()):
                    watch.number = -1
        self._close_if_idle()


_folders = _Folders()


class FolderWatch:
    """Use as a context manager, in a loop. A folder that cannot be watched (the host's limit of watches) is polled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = -1
        self._rung = asyncio.Event()

    def __enter__(self) -> FolderWatch:
        self.number = _folders.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _folders.drop(self)

    def ring(self) -> None:
        """Something in the folder has changed."""
        self._rung.set()

    async def changed(self) -> None:
        """Return when something in the folder has changed since the last call, or after a minute."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAFETY_S if self.number >= 0 else UNWATCHED_S):
                await self._rung.wait()
        self._rung.clear()


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
