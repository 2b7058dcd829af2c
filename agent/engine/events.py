"""Events of a node in Docker's form, to whoever listens; a slow listener loses its oldest ones, never the engine's time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping

KEPT = 256
"""How many are told to those who ask for the past. Source: docker-system-events(1), which keeps as many."""


class Events:
    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[dict[str, object]]] = set()
        self.recent: deque[dict[str, object]] = deque(maxlen=KEPT)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def emit(self, kind: str, action: str, ident: str, attributes: Mapping[str, str]) -> None:
        instant = time.time_ns()
        event: dict[str, object] = {
            "Type": kind, "Action": action, "Actor": {"ID": ident, "Attributes": dict(attributes)}, "scope": "local",
            "time": instant // 10**9, "timeNano": instant,
        }
        if kind == "container":
            event |= {"status": action, "id": ident, "from": attributes.get("image", "")}
        self.recent.append(event)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def listen(self, since: float | None = None, until: float | None = None) -> AsyncIterator[dict[str, object]]:
        """Events from now on, or from *since* on, as far as they are remembered; to the end of time, or *until*: seconds since
        the epoch."""
        queue: asyncio.Queue[dict[str, object]] = asyncio.Queue(1024)
        self._listeners.add(queue)
        try:
            for event in list(self.recent) if since is not None else ():
                if since is not None and _instant(event) >= since and (until is None or _instant(event) <= until):
                    yield event
            while True:
                left = None if until is None else until - time.time()
                try:
                    event = await asyncio.wait_for(queue.get(), None if left is None else max(0.0, left))
                except TimeoutError:
                    return
                yield event
        finally:
            self._listeners.discard(queue)


def _instant(event: Mapping[str, object]) -> float:
    return int(str(event["timeNano"])) / 1e9
