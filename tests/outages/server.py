"""A server that drains, run in a container: from SIGTERM on it takes no new connection, answers what comes on those that it has
with `Connection: close`, and ends when the last is closed.

Python's own http.server has no such end; nginx (SIGQUIT) and most frameworks do.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

NAME = os.uname().nodename.encode()
STALL_S = 0.5
"""A loop that did not turn for so long is on record."""


def record(what: str, since: float) -> None:
    """Write down what this server did from *since*, seconds since the epoch, to now, where the test can read it."""
    with Path("/record", NAME.decode()).open("a") as file:
        file.write(json.dumps({"what": what, "since": since, "until": time.time(), "server": NAME.decode()}) + "\n")


async def watch_loop() -> None:
    """Record each time that this process got no processor, or its loop did not turn."""
    while True:
        before = time.time()
        await asyncio.sleep(0.05)
        if time.time() - before > STALL_S:
            record("stalled", before)


class Server:
    """One port, and the connections to it."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request of a connection with this container's name."""
        self.connections += 1
        try:
            while head := await self._head(reader):
                last = self.ending.is_set() or b"connection: close" in head.lower()
                end = b"Connection: close\r\n" if last else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(NAME), end, NAME))
                await writer.drain()
                if last:
                    break
        except ConnectionError:
            pass
        finally:
            self.connections -= 1
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def run(self) -> None:
        """Serve until SIGTERM, then drain."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ending.set)
        watching = asyncio.create_task(watch_loop())
        listener = await asyncio.start_server(self.serve, "0.0.0.0", 80, backlog=256)
        await self.ending.wait()
        record("ending", time.time())
        listener.close()
        while self.connections:
            await asyncio.sleep(0.02)
        watching.cancel()
        record("ended", time.time())


if __name__ == "__main__":
    asyncio.run(Server().run())
