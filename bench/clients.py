"""Many clients of a node's Docker socket at once: lists, inspects, events, logs that are followed, attachments.

`python -m bench.clients SOCKET [SECONDS]`: what 200 clients asked in that time, what went wrong, and what the daemon held
before, meanwhile and after: it lets go of their connections, and of the memory but for IDLE.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from tests.daemons import Held, grown, held

HEAD_S = 30.0
IDLE = Held(4, 40, 24 << 20)
"""What the daemon may keep of 200 clients that have gone: threads of its pool, and memory that is free within it."""
REST_S = 20.0
"""When it must have let go."""


class Result(NamedTuple):
    """What the clients did: requests with an answer, and one text for each error."""

    asked: int
    errors: list[str]
    waits: list[float]
    """Seconds of each list and inspection, sorted."""


class Clients:
    """Half of *count* ask, and half look on: at events, at a log that grows, at a terminal."""

    def __init__(self, socket: str, count: int, seconds: float) -> None:
        self.socket, self.count, self.until = socket, count, time.monotonic() + seconds
        self.errors: list[str] = []
        self.waits: list[float] = []
        self.received = 0

    async def run(self) -> Result:
        """Make a container, let all clients work for the time given, remove it. Returns what they did."""
        async with self._client() as client:
            body = {"Image": "busybox", "Cmd": ["sh", "-c", "while true; do echo tick; sleep 0.2; done"], "Tty": False}
            ident = (await self._json(client, "POST", "/containers/create", json=body))["Id"]
            try:
                await self._json(client, "POST", f"/containers/{ident}/start")
                kinds: list[Callable[[str], Awaitable[None]]] = [
                    self._asks,
                    self._asks,
                    self._asks,
                    self._listens,
                    self._follows,
                ]
                kinds.append(self._attaches)
                await asyncio.gather(*(kinds[n % len(kinds)](ident) for n in range(self.count)))
            finally:
                await self._json(client, "DELETE", f"/containers/{ident}?force=1")
        return Result(len(self.waits) + self.received, self.errors, sorted(self.waits))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.UnixConnector(self.socket)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HEAD_S)
        async with aiohttp.ClientSession("http://docker", connector=connector, timeout=timeout) as session:
            yield session

    async def _json(self, client: aiohttp.ClientSession, method: str, path: str, **how: Any) -> Any:
        async with client.request(method, path, **how) as reply:
            text = await reply.text()
            if reply.status >= 400:
                raise RuntimeError(f"{method} {path}: {reply.status} {text[:200]}")
            return json.loads(text) if text.startswith(("{", "[")) else text

    async def _asks(self, ident: str) -> None:
        async with self._client() as client:
            while time.monotonic() < self.until:
                for path in ("/containers/json?all=1", f"/containers/{ident}/json", "/images/json", "/info"):
                    begun = time.monotonic()
                    try:
                        await self._json(client, "GET", path)
                    except (RuntimeError, aiohttp.ClientError, ValueError) as error:
                        self.errors.append(f"{path}: {error}")
                    self.waits.append(time.monotonic() - begun)
                await asyncio.sleep(0.05)

    async def _looks_on(self, method: str, path: str) -> None:
        """Read a stream until the time is over; it must not end before, nor stay silent where output is due."""
        received = 0
        async with self._client() as client:
            try:
                async with client.request(method, path) as reply:
                    if reply.status >= 400:
                        self.errors.append(f"{path}: {reply.status}")
                        return
                    while (left := self.until - time.monotonic()) > 0:
                        try:
                            async with asyncio.timeout(left):
                                data = await reply.content.readany()
                        except TimeoutError:
                            break
                        if not data:
                            self.errors.append(f"{path}: it ended")
                            return
                        received += len(data)
            except aiohttp.ClientError as error:
                self.errors.append(f"{path}: {error}")
                return
        self.received += 1
        if not received and "events" not in path:
            self.errors.append(f"{path}: nothing was received")

    async def _listens(self, ident: str) -> None:
        await self._looks_on("GET", "/events")

    async def _follows(self, ident: str) -> None:
        await self._looks_on("GET", f"/containers/{ident}/logs?stdout=1&stderr=1&follow=1")

    async def _attaches(self, ident: str) -> None:
        await self._looks_on("POST", f"/containers/{ident}/attach?stdout=1&stderr=1&stream=1")


async def _watched(socket: str, seconds: float) -> tuple[Result, Held]:
    """What the clients did, and what the daemon held in the middle of it."""
    clients = asyncio.ensure_future(Clients(socket, 200, seconds).run())
    await asyncio.sleep(seconds / 2)
    busy = held(socket)
    return await clients, busy


def main(socket: str, seconds: str = "60") -> int:
    """Print the result of 200 clients of *socket* in *seconds*. Returns 1 if any request failed, or if
    the daemon kept more than IDLE."""
    before = held(socket)
    result, busy = asyncio.run(_watched(socket, float(seconds)))
    deadline = time.monotonic() + REST_S
    while (more := grown(before, after := held(socket), IDLE)) and time.monotonic() < deadline:
        time.sleep(0.1)
    middle, last = (result.waits[int(len(result.waits) * share)] * 1e3 for share in (0.5, 0.99))
    print(
        f"{result.asked} answers in {seconds} s, median {middle:.1f} ms, 99th of 100 {last:.1f} ms, {len(result.errors)} errors"
    )
    print(f"the daemon: {before} before; {busy} meanwhile; {after} after")
    for error in [*sorted(set(result.errors))[:20], *([more] if more else [])]:
        print(f"  {error}")
    return 1 if result.errors or more else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
