"""A client that ends its input before it reads is answered; one that goes away ends its request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from agent.contract.half_open import Runner
from agent.contract.takeover import Taken, Written


class Place:
    """A server with three paths, and what became of its requests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cancelled = asyncio.Event()

    async def says(self, request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(body=await request.read() or b"said")

    async def waits(self, request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response()

    async def taken(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        both = Taken(request)
        await both.send(b"heard " + await both.reader.read())
        return Written()

    async def answered(self, data: bytes) -> bytes:
        """All that comes back to a client that sends *data*, and no more."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            found = await reader.read()
        writer.close()
        return found


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    made = Place(folder / "sock")
    app = web.Application()
    app.router.add_route("*", "/says", made.says)
    app.router.add_get("/waits", made.waits)
    app.router.add_post("/taken", made.taken)
    runner = Runner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(made.path))
    await web.SockSite(runner, listener).start()
    try:
        yield made
    finally:
        await runner.cleanup()


async def test_a_request_is_answered_after_the_end_of_the_input(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        assert (await there.answered(b"GET /says HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\nsaid")
        assert (await there.answered(b"GET /says HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nsaid")
        body = b"POST /says HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
        assert (await there.answered(body)).endswith(b"\r\n\r\nbody")


async def test_half_a_request_is_none(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        assert await there.answered(b"") == b""
        assert await there.answered(b"GET /says HT") == b""
        assert await there.answered(b"POST /says HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nbody") == b""


async def test_who_goes_away_ends_the_request(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        for half in (False, True):
            there.cancelled.clear()
            _, writer = await asyncio.open_unix_connection(there.path)
            writer.write(b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
            if half:
                writer.write_eof()
            await asyncio.sleep(0.1)
            assert not there.cancelled.is_set()
            writer.close()
            async with asyncio.timeout(10):
                await there.cancelled.wait()


async def test_input_that_ends_before_a_connection_is_taken_over_has_an_end(tmp_path: Path) -> None:
    async with place(tmp_path) as there:
        assert await there.answered(b"POST /taken HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n") == b"heard "
