"""What a service is asked for as a whole: the requests that ingress forwards to it, and what a Prometheus says."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import aiohttp

from orchestrator.errors import PystackError
from orchestrator.server.traffic import TrafficSource

PATIENCE_S = 5.0
SHORTEST_S = 1.0
"""A count of a shorter time says nothing."""


class QueryError(PystackError):
    """Prometheus does not understand the query, or has not one number for an answer; *empty*: it may have one another time."""

    def __init__(self, why: str, empty: bool = False) -> None:
        super().__init__(why)
        self.empty = empty


class LoadFigures:
    """*requests* sees the requests to tasks, if anybody does; *prometheus* is where queries are put to, "" if there is none."""

    def __init__(self) -> None:
        self.requests: TrafficSource | None = None
        self.prometheus = ""
        self._counting = contextlib.AsyncExitStack()
        self._since = math.inf
        self._counted: Counter[str] = Counter()
        self._rates: dict[str, float] = {}
        self._unknown = ""
        self.asked: set[str] = set()
        """Services without a task (`<stack>/<service>`) for which a request waits."""
        self.somebody_waits = asyncio.Event()

    async def begin_turn(self, wanted: bool) -> None:
        """Sum up what was counted since the last turn, and count on if that is *wanted*."""
        now = time.monotonic()
        passed = now - self._since
        self._rates = {n: count / passed for n, count in self._counted.items()} if passed >= SHORTEST_S else {}
        self._unknown = "" if passed >= SHORTEST_S else "they are counted from now on"
        self._counted.clear()
        if wanted and self.requests:
            if self._since == math.inf:
                await self._counting.enter_async_context(self.requests.observe(self._count))
            self._since = now
        elif self._since < math.inf:
            await self.close()

    def _count(self, task: str, failed: bool, seconds: float) -> None:
        del failed, seconds
        if "/" not in task:
            self._counted[task] += 1
        elif task not in self.asked:
            self.asked.add(task)
            self.somebody_waits.set()

    def rps(self, tasks: Iterable[str]) -> float | str:
        """How many requests a second went to *tasks* in the last turn, or why nobody knows."""
        unknown = self.requests.blind if self.requests else "nobody sees requests"
        return unknown or self._unknown or sum(self._rates.get(t, 0.0) for t in tasks)

    async def ask(self, promql: str) -> float:
        """The one number that *promql* is now. Raises QueryError where it is none, PystackError where nobody answers."""
        if not self.prometheus:
            raise PystackError("config.yml of the server names no Prometheus: prometheus: http://HOST:9090")
        url = f"{self.prometheus.rstrip('/')}/api/v1/query"
        try:
            timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, params={"query": promql}) as reply:
                answer = await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PystackError(f"{url} does not answer: {error or type(error).__name__}") from error
        return number_of(answer)

    async def close(self) -> None:
        """Count no more."""
        self._since = math.inf
        await self._counting.aclose()


def number_of(answer: Any) -> float:
    """The one number in *answer*. Raises QueryError. Source: Prometheus, HTTP API, "Instant queries"."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        why = answer.get("error") if isinstance(answer, dict) else ""
        raise QueryError(str(why or "Prometheus does not say what is wrong"))
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if kind == "vector" and len(result) > 1:
        raise QueryError(f"it gives {len(result)} series, not one: sum() them")
    if kind not in ("vector", "scalar"):
        raise QueryError(f"it gives a {kind}, not one number")
    if not result:
        raise QueryError("it gives no series", empty=True)
    number = float(result[1] if kind == "scalar" else result[0]["value"][1])
    if not math.isfinite(number):
        raise QueryError(f"it gives {number}", empty=True)
    return max(0.0, number)
