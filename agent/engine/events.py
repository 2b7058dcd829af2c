"""Events of a node in Docker's form, to whoever listens; a slow listener loses its oldest ones, never the engine's time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping


class Events:
    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[dict[str, object]]] = set()
        self.recent: deque[dict[str, object]] = deque(maxlen=1024)

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

    async def listen(self) -> AsyncIterator[dict[str, object]]:
        queue: asyncio.Queue[dict[str, object]] = asyncio.Queue(1024)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
