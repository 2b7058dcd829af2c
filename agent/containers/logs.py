"""A container's output, as conmon writes it: `TIME STREAM TAG TEXT`, one line a write.

TAG is F for a whole line and P for a part. Source: Kubernetes CRI logging format, conmon(8) `k8s-file`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from agent.containers.watch import FolderWatch

BLOCK = 1 << 16


class Line(msgspec.Struct, frozen=True):
    """One line or part of it; *stream* is 1 for stdout, 2 for stderr; *text* has its newline where it is whole."""

    time: str
    stream: int
    text: bytes


def parse(raw: bytes) -> Line | None:
    """None for what is no log line, such as the torn last one of a full disk."""
    parts = raw.split(b" ", 3)
    if len(parts) < 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    text = parts[3].rstrip(b"\n")
    return Line(parts[0].decode(errors="replace"), 1 if parts[1] == b"stdout" else 2,
                text + b"\n" if parts[2] == b"F" else text)


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
    path: Path, *, follow: bool = False, tail: int | None = None, since: str = "", until: str = "",
    ended: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Line]:
    """Lines of the log at *path*; with *follow* until *ended* says that no more will come.

    Rotation shows as a file that shrank, or as another inode: reading goes on from its start."""
    if not path.exists() and not follow:
        return
    with FolderWatch(path.parent) as watch:
        while not path.exists():
            if ended():
                return
            await watch.changed()
        async for line in _read(path, watch, follow, tail, since, until, ended):
            yield line


async def _read(
    path: Path, watch: FolderWatch, follow: bool, tail: int | None, since: str, until: str, ended: Callable[[], bool],
) -> AsyncIterator[Line]:
    offset = 0
    if since:
        offset = time_offset(path, since)
    if tail is not None:
        offset = max(offset, tail_offset(path, tail) if tail else path.stat().st_size)
    limit = instant(until) if until else None
    file = path.open("rb")
    try:
        file.seek(offset)
        pending = b""
        while True:
            finished = ended()  # asked before reading, so that the last lines are not missed
            raw = file.readline()
            while raw:
                pending += raw
                if pending.endswith(b"\n"):
                    line = parse(pending)
                    pending = b""
                    if line:
                        if limit is not None and instant(line.time) > limit:
                            return
                        yield line
                raw = file.readline()
            if not follow or finished:
                return
            await watch.changed()
            try:
                now = path.stat()
            except FileNotFoundError:
                continue
            if now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell():
                file.close()
                file = path.open("rb")
                pending = b""
    finally:
        file.close()
