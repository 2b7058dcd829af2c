"""Keeps logs within max-size and max-file: log, log.1, log.2 …, the oldest last.

conmon by itself can only truncate its file. So the agent renames a full file and has conmon open its path again; conmon's own
limit applies while there is no agent.
Source: conmon's control fifo, message 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from pathlib import Path

import msgspec

from agent.containers.watch import InotifyOneshot

SOON_S, LATE_S = 0.01, 0.25
"""How soon a log that grows is looked at again, at the least and at the most."""
REOPEN = b"2 0 0\n"


class RotationLimits(msgspec.Struct, frozen=True):
    """*size* in bytes, 0 for no limit; *files* includes the one being written."""

    size: int = 0
    files: int = 1

    @property
    def guard(self) -> int:
        """conmon's own limit in bytes. It counts all bytes since the start, also those of renamed files, and drops what is
        beyond: with several files it is far off, for the case that there is no agent for long."""
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
    """Move *log* aside and let conmon begin a new one; False if conmon does not listen (nothing was moved then)."""
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


class _Log:
    """A log under rotation; *due* is the time of its next check, in seconds of the loop's clock."""

    def __init__(self, path: Path, ctl: Path, limits: RotationLimits, now: float) -> None:
        self.path, self.ctl, self.limits = path, ctl, limits
        self.size, self.seen, self.due, self.missed = 0, now, now, 0

    def look(self, now: float) -> bool:
        """Rotate the log if it is full, and set when it is due again by its growth. Returns False if it does not grow."""
        try:
            size = self.path.stat().st_size
        except OSError:  # conmon is about to open it, or never will if there is no log
            self.missed += 1
            self.due = now + min(LATE_S, SOON_S * 2**self.missed)
            return True
        self.missed = 0
        if size >= self.limits.size and rotate(self.path, self.ctl, self.limits.files):
            self.size, self.seen, self.due = 0, now, now + SOON_S
            return True
        grown, since = size - self.size, max(now - self.seen, SOON_S)
        self.size, self.seen = size, now
        full = (self.limits.size - size) * since / grown if grown > 0 else math.inf
        self.due = now + min(LATE_S, max(SOON_S, full / 2))  # halfway: it may grow faster by then
        return grown > 0


class Rotation:
    """Looks after the logs of all running containers that have limits: those that grow as often as it takes, the others when
    they do."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._alarms: InotifyOneshot | None = None
        self._armed: dict[int, _Log] = {}
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def add(self, container: str, log: Path, ctl: Path, limits: RotationLimits) -> None:
        """Watch the log of *container*, if *limits* ask for rotation."""
        if limits.size and limits.files > 1:
            self._logs[container] = _Log(log, ctl, limits, asyncio.get_running_loop().time())
            self._woken.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look(), name="log rotation")

    def drop(self, container: str) -> None:
        """Watch the log of *container* no longer."""
        if log := self._logs.pop(container, None):
            self._armed = {number: one for number, one in self._armed.items() if one is not log}

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._alarms = InotifyOneshot()
        if self._alarms.fd >= 0:
            loop.add_reader(self._alarms.fd, self._ring)
        try:
            while self._logs:
                self._woken.clear()
                now = loop.time()
                for log in [one for one in self._logs.values() if one.due <= now]:
                    if not log.look(now) and (number := self._alarms.arm(log.path)) is not None:
                        self._armed[number] = log
                        # a write just before it was armed gives no event
                        log.due = now + SOON_S if log.look(now) else math.inf
                due = min((one.due for one in self._logs.values()), default=now)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if due == math.inf else max(0.0, due - loop.time())):
                        await self._woken.wait()
        finally:
            if self._alarms.fd >= 0:
                loop.remove_reader(self._alarms.fd)
            self._alarms.close()
            self._armed.clear()

    def _ring(self) -> None:
        assert self._alarms
        for number in self._alarms.rung():
            if log := self._armed.pop(number, None):
                log.due = asyncio.get_running_loop().time() + SOON_S
                self._woken.set()

    def close(self) -> None:
        """Stop watching."""
        if self._task:
            self._task.cancel()
