"""inotify(7) on one folder: wakes who waits for a file in it to change."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

from agent import descriptors

_libc = ctypes.CDLL(None, use_errno=True)
IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF, IN_MOVE_SELF = 0x2, 0x80, 0x100, 0x400, 0x800
SAFETY_S = 1.0


class FolderWatch:
    """Use as a context manager. A folder that cannot be watched (the host's limit of watches) is polled."""

    def __init__(self, folder: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF
        self._watched = self._fd >= 0 and _libc.inotify_add_watch(self._fd, str(folder).encode(), mask) >= 0

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
            await asyncio.wait_for(descriptors.readable(self._fd), SAFETY_S)
            os.read(self._fd, 1 << 16)
        except (TimeoutError, BlockingIOError):
            pass
