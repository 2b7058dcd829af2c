"""SSH agents that our own client lends to builds: it keeps a connection ready at a door, and one program uses it.

The first byte that the node sends says that a program is there; the client opens the next connection then.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

WAIT_S = 15.0
"""Seconds for which a program waits for a connection to its client's agent."""
MOST = 64
"""Connections that are ready at one door."""
BEGIN = b"+"


class Line(Protocol):
    """A connection that was taken over."""

    reader: asyncio.StreamReader

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError."""


class AgentDoors:
    """The doors of a node, by IDs that clients choose and tell nobody."""

    def __init__(self) -> None:
        self._ready: dict[str, asyncio.Queue[tuple[Line, asyncio.Event]]] = {}

    async def offer(self, ident: str, line: Line) -> None:
        """Have *line* ready for a program, until it is used and done, or its client goes."""
        queue = self._ready.setdefault(ident, asyncio.Queue(MOST))
        done = asyncio.Event()
        try:
            queue.put_nowait((line, done))
            await done.wait()
        finally:
            if queue.empty():
                self._ready.pop(ident, None)

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a program and the client's agent behind the door *ident*, until either ends."""
        try:
            async with asyncio.timeout(WAIT_S):
                line, done = await self._ready.setdefault(ident, asyncio.Queue(MOST)).get()
        except TimeoutError:
            writer.close()
            return

        async def out() -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 15):
                    await line.send(data)

        sending: asyncio.Task[None] | None = None
        try:
            await line.send(BEGIN)
            sending = asyncio.create_task(out())
            while data := await line.reader.read(1 << 15):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the program sees that its agent is gone
        finally:
            if sending:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            done.set()
            writer.close()
