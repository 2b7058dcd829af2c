"""A daemon seen from outside: its process, and what it holds of the machine.

Source: unix(7), SO_PEERCRED; proc_pid_status(5)."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple


def process_of(path: str) -> int:
    """The process that listens at the unix socket *path*. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


class Held(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    memory: int
    """Bytes of its own that are in memory."""

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.memory >> 20} MiB"


def held(path: str) -> Held:
    """What the daemon at the socket *path* holds now. Raises OSError."""
    process = Path(f"/proc/{process_of(path)}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Held(len(list((process / "fd").iterdir())), int(status["Threads"]), int(status["RssAnon"].split()[0]) << 10)


def opened(path: str) -> list[tuple[str, int]]:
    """What the descriptors of the daemon at the socket *path* are, with how many there are of each, the most first."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{process_of(path)}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found[re.sub(r"\d+", "#", str(descriptor.readlink()))[-120:]] += 1
    return found.most_common()


MORE = Held(16, 40, 96 << 20)
"""What a daemon may hold in the end that it did not hold at first: caches, and a pool of threads."""


def grown(before: Held, after: Held, more: Held = MORE) -> str:
    """What of *after* is more than *before* and *more*; "" if nothing is."""
    pairs = zip(Held._fields, before, after, more, strict=True)
    return ", ".join(f"{what} grew from {old} to {new}" for what, old, new, most in pairs if new > old + most)
