"""What folded stacks say: in which functions a program is, and how often. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

IDLE = ("select", "poll", "epoll_wait", "wait", "_worker", "acquire", "Runner.run", "run (uvloop")
"""Beginnings of the innermost frame of a thread that waits."""


def functions(folded: str, most: int) -> list[dict[str, Any]]:
    """A row for each function, of those that are innermost most often *most*: *self* and *total* are percents of all samples in
    which a thread worked, and *function* has its file and line."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not count.isdecimal() or frames[-1].startswith(IDLE):
            continue
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    samples = own.total() or 1
    return [
        {"self": round(100 * n / samples, 1), "total": round(100 * total[name] / samples, 1), "function": name}
        for name, n in own.most_common(most)
    ]
