"""A connection taken over from HTTP: after 101 both sides send bytes as they like (Engine API: attach, exec)."""

from __future__ import annotations

import asyncio
import struct

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest


class _Feed:
    """What the client sends after the upgrade, as aiohttp's protocol hands it on."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=1 << 18)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if data:
            self.reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.reader.feed_eof()

    def set_exception(self, error: BaseException, *_: object) -> None:
        if not self.reader.at_eof():
            self.reader.feed_eof()


class Hijacked(web.StreamResponse):
    """The answer that takes the connection over. `reader` gives what the client sends, `send` writes to it."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        super().__init__(status=101)
        self.force_close()
        self._feed = _Feed()
        self.reader = self._feed.reader
        assert request.transport is not None
        self.transport = request.transport
        self._protocol = request.protocol
        head = f"Content-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        request.protocol.set_parser(self._feed)  # type: ignore[arg-type]
        if request.headers.get("Upgrade"):
            self.transport.write(b"HTTP/1.1 101 UPGRADED\r\n" + head.encode())
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\n" + f"Content-Type: {content_type}\r\n\r\n".encode())

    async def send(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self._protocol._drain_helper()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the head was written when the connection was taken."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the end of the connection is the end of the stream."""


def frame(stream: int, data: bytes) -> bytes:
    """One frame of Docker's multiplexed stream: type, three zero bytes, length, payload."""
    return struct.pack(">BxxxI", stream, len(data)) + data
