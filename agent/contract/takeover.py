"""Taking a connection over from the HTTP server: after 101 both sides send bytes as they like.

Besides the manifest this is all that the node's HTTP API and the server in front of it share; it knows neither of them.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest


class HangUp:
    """Calls *then* when the other end of *sock* is gone as a whole. One that has ended its input may still read, and the
    connection is not read from any more, so only the end of both directions is of interest, which epoll always reports. Source:
    epoll_ctl(2), EPOLLHUP."""

    def __init__(self, sock: Any, then: Callable[[], None]) -> None:
        self._then = then
        self._epoll: select.epoll | None = None
        if sock is not None and sock.fileno() >= 0:
            self._epoll = select.epoll()
            self._epoll.register(sock.fileno(), 0)
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._gone)

    def _gone(self) -> None:
        self.cancel()
        self._then()

    def cancel(self) -> None:
        """Wait no longer."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None


class Taken(asyncio.Protocol):
    """Bytes from the client go to `reader`, and a half-closed side stays half closed.

    aiohttp's own protocol closes a connection at the client's end of input, but `exec -i` goes on after that."""

    def __init__(self, request: web.Request) -> None:
        assert request.transport is not None
        self.reader = asyncio.StreamReader(limit=1 << 18)
        self.transport = request.transport
        self._server = request.protocol
        self._writable = asyncio.Event()
        self._writable.set()
        self._hangup: HangUp | None = None
        self.lost = asyncio.Event()
        """Set when the client goes away as a whole."""
        self.transport.set_protocol(self)
        if getattr(self._server, "ended", False):  # its input has ended before it was taken over
            self.reader.feed_eof()

    def data_received(self, data: bytes) -> None:
        """Feed the reader."""
        self.reader.feed_data(data)

    def eof_received(self) -> bool:
        """End the reader's data and keep the connection open for writing."""
        self.reader.feed_eof()
        if self._hangup is None:
            self._hangup = HangUp(self.transport.get_extra_info("socket"), self.lost.set)
        return True

    def pause_writing(self) -> None:
        """Make `send` wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._writable.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the reader, wake writers, and let the server clean up."""
        if not self.reader.at_eof():
            self.reader.feed_eof()
        self._writable.set()
        if self._hangup:
            self._hangup.cancel()
        self.lost.set()
        self._server.connection_lost(exc)

    async def send(self, data: bytes) -> None:
        """Write *data* and wait until the buffer has room. Raises ConnectionResetError if the connection closes."""
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self._writable.wait()


class Written(web.StreamResponse):
    """An answer that was written to the connection by hand: the HTTP server adds nothing, and closes."""

    def __init__(self, *, status: int = 200) -> None:
        super().__init__(status=status)
        self.force_close()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the head was written already."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the end of the connection is the end of the stream."""
