"""Keeps logs within max-size and max-file: log, log.1, log.2 …, the oldest last.

conmon alone can only begin its file anew, which loses what was in it. So the agent moves a full file aside and asks conmon
to open its path again; conmon's own limit stays as what holds while the agent is away.
Source: conmon's control fifo, message 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

POLL_S, BUSY_S = 0.25, 0.05
REOPEN = b"2 0 0\n"


class Limits(msgspec.Struct, frozen=True):
    """*size* in bytes, 0 for none; *files* counts the one that is written too."""

    size: int = 0
    files: int = 1

    @property
    def guard(self) -> int:
        """conmon's own limit. It counts all that it ever wrote, so that a file moved aside does not set it back, and
        what it drops is lost: with several files it is far off, for an agent that stays away."""
        return max(1 << 30, 16 * self.size * self.files) if self.files > 1 and self.size else self.size


def segments(log: Path) -> list[Path]:
    """All files of a log that there are, the oldest first."""
    older = []
    number = 1
    while (path := log.with_name(f"{log.name}.{number}")).exists():
        older.append(path)
        number += 1
    return [*reversed(older), *([log] if log.exists() else [])]


def rotate(log: Path, ctl: Path, files: int) -> bool:
    """Move *log* aside and let conmon begin a new one; False where conmon does not listen (nothing was moved then)."""
    try:
        fifo = os.open(ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for number in range(files - 1, 0, -1):
            source = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                source.rename(log.with_name(f"{log.name}.{number}"))
        os.write(fifo, REOPEN)
        return True
    finally:
        os.close(fifo)


class Rotation:
    """Looks after the logs of all running containers that have limits."""

    def __init__(self) -> None:
        self._logs: dict[str, tuple[Path, Path, Limits]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, container: str, log: Path, ctl: Path, limits: Limits) -> None:
        if limits.size and limits.files > 1:
            self._logs[container] = log, ctl, limits
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look(), name="log rotation")

    def drop(self, container: str) -> None:
        self._logs.pop(container, None)

    async def _look(self) -> None:
        while self._logs:
            busy = False
            for log, ctl, limits in list(self._logs.values()):
                with contextlib.suppress(OSError):
                    if log.stat().st_size >= limits.size:
                        busy |= rotate(log, ctl, limits.files)
            await asyncio.sleep(BUSY_S if busy else POLL_S)

    def close(self) -> None:
        if self._task:
            self._task.cancel()
