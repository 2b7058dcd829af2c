"""A connection taken over from HTTP: after 101 both sides send bytes as they like (Engine API: attach, exec)."""

from __future__ import annotations

import asyncio
import struct

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest


class Taken(asyncio.Protocol):
    """Takes a connection over from the HTTP server: bytes to `reader`, and a half-closed side stays half closed.

    aiohttp's own protocol closes a connection at the client's end of input, which for `exec -i` is no end at all."""

    def __init__(self, request: web.Request) -> None:
        assert request.transport is not None
        self.reader = asyncio.StreamReader(limit=1 << 18)
        self.transport = request.transport
        self._server = request.protocol
        self._writable = asyncio.Event()
        self._writable.set()
        self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed_data(data)

    def eof_received(self) -> bool:
        self.reader.feed_eof()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.reader.at_eof():
            self.reader.feed_eof()
        self._writable.set()
        self._server.connection_lost(exc)

    async def send(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self._writable.wait()


class Hijacked(web.StreamResponse):
    """The answer that takes the connection over. `reader` gives what the client sends, `send` writes to it."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        super().__init__(status=101)
        self.force_close()
        self._taken = Taken(request)
        self.reader = self._taken.reader
        self.send = self._taken.send
        line = "HTTP/1.1 101 UPGRADED" if request.headers.get("Upgrade") else "HTTP/1.1 200 OK"
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if request.headers.get("Upgrade") else ""
        head = f"{line}\r\nContent-Type: {content_type}\r\n{upgrade}\r\n"
        self._taken.transport.write(head.encode())

    @property
    def closed(self) -> bool:
        """The client went away."""
        return self._taken.transport.is_closing()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the head was written when the connection was taken."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the end of the connection is the end of the stream."""


def frame(stream: int, data: bytes) -> bytes:
    """One frame of Docker's multiplexed stream: type, three zero bytes, length, payload."""
    return struct.pack(">BxxxI", stream, len(data)) + data
