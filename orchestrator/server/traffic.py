"""What becomes of the requests to some tasks, as ingress sees them, and whether that is still good enough.

Two questions are one: the share of requests that fail, and the share of those that are slower than the 99th percentile may
be, which is to be one in a hundred at most. During a step an update is taken back only where chance cannot explain it (the
lower end of a Wilson score interval); at its end the share counts as it is.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from orchestrator.stackfile.workloads import AbortOn

SURE = 3.0
"""So many standard deviations do not come by chance."""
FEW = 5
"""With fewer bad requests than these nothing is sure."""
P99 = 0.01

RequestListener = Callable[[str, bool, float], None]
"""Called for a request with the task that it went to, whether it failed, and the seconds until its answer began."""


class TrafficSource(Protocol):
    """Who sees requests; ingress does."""

    @property
    def blind(self) -> str:
        """Why requests are not seen now, or not all of them; "" if they are."""
        ...

    def observe(self, listener: RequestListener) -> AbstractAsyncContextManager[None]:
        """Call *listener* for every request that is answered meanwhile."""
        ...


class Traffic:
    """The requests to the tasks *names* during a step, against *limits*."""

    def __init__(self, limits: AbortOn) -> None:
        self.limits = limits
        self.names: frozenset[str] = frozenset()
        self.failed = 0
        self.seconds = array("d")

    def begin(self, names: frozenset[str]) -> None:
        """From here on it is about *names*, and nothing is known of them yet."""
        self.names, self.failed, self.seconds = names, 0, array("d")

    def add(self, task: str, failed: bool, seconds: float) -> None:
        """A request was answered, or was not."""
        if task in self.names:
            self.failed += failed
            self.seconds.append(seconds)

    @property
    def blind(self) -> bool:
        """Whether there are limits, and no request that could be held against them."""
        return self.limits != AbortOn() and not self.seconds

    def surely_bad(self) -> str | None:
        """Why the requests show beyond chance that a limit is passed; None while they do not."""
        return self._bad(lambda bad, limit: bad >= FEW and lower_bound(bad, len(self.seconds)) > limit)

    def bad(self) -> str:
        """Why a limit is passed, "" if none is."""
        return self._bad(lambda bad, limit: bad > limit * len(self.seconds)) or ""

    def _bad(self, passed: Callable[[int, float], bool]) -> str | None:
        total, limits = len(self.seconds), self.limits
        if limits.error_rate and passed(self.failed, limits.error_rate / 100):
            rate = f"{self.failed / total * 100:.3g}%"
            return f"{self.failed} of {total} requests failed ({rate}), abort_on.error_rate is {limits.error_rate:g}%"
        if limits.p99_s and passed(sum(s > limits.p99_s for s in self.seconds), P99):
            p99 = sorted(self.seconds)[math.ceil(total * (1 - P99)) - 1]
            return f"the p99 of {total} requests is {p99 * 1000:.0f} ms, abort_on.p99 is {limits.p99_s * 1000:g} ms"
        return None


def lower_bound(bad: int, total: int, deviations: float = SURE) -> float:
    """The least share of bad requests that could well have shown itself as *bad* of *total*."""
    if not total:
        return 0.0
    z, share = deviations * deviations / total, bad / total
    return (share + z / 2 - deviations * math.sqrt((share * (1 - share) + z / 4) / total)) / (1 + z)
