"""Events of a node in Docker's form; a slow listener loses its oldest ones, and does not delay the engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from agent import files

KEPT = 256
"""How many past events a listener can get. Source: docker-system-events(1), which keeps as many."""


class Events:
    """The recent events are also in *file*, one JSON object a line, for the next agent."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines = 0
        self._appending = -1
        """The file, open for the next line; -1 before the first."""
        self._listeners: set[asyncio.Queue[dict[str, object]]] = set()
        self.recent: deque[dict[str, object]] = deque(self._read(), maxlen=KEPT)

    def _read(self) -> list[dict[str, object]]:
        found = []
        with contextlib.suppress(OSError):
            for line in self._file.read_bytes().splitlines():
                with contextlib.suppress(msgspec.MsgspecError):  # the torn last one of a crash
                    found.append(msgspec.json.decode(line, type=dict[str, object]))
        self._lines = len(found)
        return found

    def _keep(self, event: dict[str, object]) -> None:
        """Append *event* to the file; if that fails, as on a full disk, it is lost when this agent ends."""
        with contextlib.suppress(OSError):
            if self._lines < 4 * KEPT:
                if self._appending < 0:
                    self._appending = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                os.write(self._appending, msgspec.json.encode(event) + b"\n")
                self._lines += 1
            else:
                self.close()
                files.write_atomically(self._file, b"".join(msgspec.json.encode(e) + b"\n" for e in self.recent))
                self._lines = len(self.recent)

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        if self._appending >= 0:
            os.close(self._appending)
            self._appending = -1

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    def emit(self, kind: str, action: str, ident: str, attributes: Mapping[str, str]) -> None:
        """Emit an event with the present time, to listeners and to the file. A listener's full queue drops its oldest event."""
        instant = time.time_ns()
        event: dict[str, object] = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": ident, "Attributes": dict(sorted(attributes.items()))},
            "scope": "local",
            "time": instant // 10**9,
            "timeNano": instant,
        }
        if kind == "container":
            event |= {"status": action, "id": ident, "from": attributes.get("image", "")}
        elif kind == "image":
            event |= {"status": action, "id": ident}
        self.recent.append(event)
        self._keep(event)
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
                    async with asyncio.timeout(None if left is None else max(0.0, left)):
                        event = await queue.get()
                except TimeoutError:
                    return
                yield event
        finally:
            self._listeners.discard(queue)


def _instant(event: Mapping[str, object]) -> float:
    return int(str(event["timeNano"])) / 1e9
