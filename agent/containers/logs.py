"""A container's output, as conmon writes it: `TIME STREAM TAG TEXT`, one line a write.

TAG is F for a whole line and P for a part. Source: Kubernetes CRI logging format, conmon(8) `k8s-file`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from agent.containers.rotation import segments
from agent.containers.watch import FolderWatch

BLOCK = 1 << 16
YIELD_EVERY = 1024
COARSE_S = 0.1
"""By how much a file may look older than its last line: the kernel stamps files with the last tick of its clock."""


class Line(msgspec.Struct, frozen=True):
    """One line or part of it; *stream* is 1 for stdout, 2 for stderr; *text* ends in a newline if it is complete."""

    time: str
    stream: int
    text: bytes


IDLE = Line("", 0, b"")
"""In place of a line: all present lines were yielded, and the next one is awaited."""


def parse(raw: bytes) -> Line | None:
    """The line *raw*; None if it is not a log line, such as the torn last one of a full disk."""
    parts = raw.split(b" ", 3)
    if len(parts) < 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    text = parts[3].rstrip(b"\n")
    return Line(
        parts[0].decode(errors="replace"), 1 if parts[1] == b"stdout" else 2, text + b"\n" if parts[2] == b"F" else text
    )


def tail_offset(path: Path, lines: int) -> int:
    """Where the last *lines* lines begin, found from the end: the cost follows the answer, not the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end, seen = size, 0
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            block = file.read(end - start)
            if end == size and block.endswith(b"\n"):
                seen -= 1
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                seen += 1
                if seen == lines:
                    return start + at + 1
            end = start
    return 0


def time_offset(path: Path, since: str) -> int:
    """Where the first line at or after *since* (RFC 3339) begins, by bisection over the file."""
    wanted = instant(since)
    low, high = 0, path.stat().st_size
    with path.open("rb") as file:
        while low < high:
            middle = (low + high) // 2
            file.seek(middle)
            if middle:
                file.readline()
            line = parse(file.readline())
            if line is None or instant(line.time) >= wanted:
                high = middle
            else:
                low = middle + 1
        file.seek(low)
        if low:
            file.readline()
        return file.tell()


def instant(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time (nanoseconds are cut) or of a decimal number."""
    try:
        return float(text)
    except ValueError:
        pass
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[:9].rstrip("Z+-:")
        zone = rest[len("".join(c for c in rest if c.isdigit())) :] if "+" not in rest and "-" not in rest else ""
        for sign in "+-":
            if sign in rest:
                digits, _, tail = rest.partition(sign)
                zone = sign + tail
        text = f"{head}.{digits[:6]}{zone}"
    parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()


async def read(
    path: Path,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: str = "",
    until: str = "",
    ended: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Line]:
    """Lines of the log at *path*, from its oldest file on; with *follow* until *ended* returns true, and IDLE each time
    before more are awaited."""
    if not path.exists() and not follow:
        return
    with FolderWatch(path.parent) as watch:
        while not path.exists():
            if ended():
                return
            yield IDLE
            await watch.changed()
        async for line in _read(path, watch, follow, tail, since, until, ended):
            yield line


def _start(path: Path, tail: int | None, since: str) -> tuple[Path, int]:
    """The file and the place in it where reading begins."""
    files = segments(path)
    begin = files[0], 0
    if since:
        wanted = instant(since)
        late = [f for f in files if f.stat().st_mtime + COARSE_S >= wanted]
        begin = (late[0], time_offset(late[0], since)) if late else (files[-1], files[-1].stat().st_size)
    if tail is None:
        return begin
    left, found = tail, (files[-1], files[-1].stat().st_size)
    for file in reversed(files):
        if left <= 0:
            break
        offset = tail_offset(file, left)
        found = file, offset
        if offset or file == begin[0]:
            break
        left -= count_lines(file)
    return max(begin, found, key=lambda place: (files.index(place[0]), place[1]))


def count_lines(path: Path) -> int:
    """The number of newlines in the file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _following(path: Path, descriptor: int) -> Path | None:
    """The file after the open one; None if that is the one being written.

    Raises FileNotFoundError in the middle of a rotation: call again."""
    files = segments(path)
    inodes = [f.stat().st_ino for f in files]
    status = os.fstat(descriptor)
    if status.st_ino in inodes:
        at = inodes.index(status.st_ino)
        return files[at + 1] if at + 1 < len(files) else None
    if status.st_nlink:
        raise FileNotFoundError(path)
    # dropped as the oldest, or truncated by conmon: later lines come next
    return next((f for f in files if f.stat().st_mtime >= status.st_mtime), files[-1] if files else None)


async def _read(
    path: Path,
    watch: FolderWatch,
    follow: bool,
    tail: int | None,
    since: str,
    until: str,
    ended: Callable[[], bool],
) -> AsyncIterator[Line]:
    start, offset = _start(path, tail, since)
    limit = instant(until) if until else None
    file = start.open("rb")
    try:
        file.seek(offset)
        pending = b""
        while True:
            finished = ended()  # asked before reading, so that the last lines are not missed
            try:
                complete = _following(path, file.fileno()) is not None
            except FileNotFoundError:
                await asyncio.sleep(0.001)
                continue
            # its successor is determined before it is read to its end, so that no line is missed
            for number, raw in enumerate(file, 1):
                if number % YIELD_EVERY == 0:
                    await asyncio.sleep(0)  # a flood of lines must not starve other work of this process
                pending += raw
                if pending.endswith(b"\n"):
                    line = parse(pending)
                    pending = b""
                    if line:
                        if limit is not None and instant(line.time) > limit:
                            return
                        yield line
            if complete:
                # asked once more: while its lines were handed on, names may have moved by a whole rotation
                with contextlib.suppress(FileNotFoundError):
                    if following := _following(path, file.fileno()):
                        successor = following.open("rb")
                        file.close()
                        file, pending = successor, b""
                        continue
                await asyncio.sleep(0.001)
                continue
            if not follow or finished:
                return
            yield IDLE
            await watch.changed()
    finally:
        file.close()
