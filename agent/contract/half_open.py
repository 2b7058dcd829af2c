"""An HTTP server whose clients may end their input before they have read the answer.

aiohttp closes a connection at the client's end of input, and a client that pipes a request into socat(1) or
`docker system dial-stdio` reads nothing then. On a unix socket the kernel tells such a client from one that has gone. Source:
unix(7); epoll_ctl(2), EPOLLHUP.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from aiohttp import StreamReader, web

from agent.contract.takeover import HangUp


class HalfOpen(web.RequestHandler):
    """Answers the request that is there when the client ends its input, and closes then."""

    __slots__ = ("_hangup", "_newest", "ended")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hangup: HangUp | None = None
        self._newest: StreamReader | None = None
        self.ended = False
        """The client has ended its input."""

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True keeps the connection open."""
        sock = self.transport.get_extra_info("socket") if self.transport else None
        if sock is None or sock.family != socket.AF_UNIX or not self._is_whole():
            return None
        self.ended = True
        self._hangup = HangUp(sock, self._gone)
        self.close()
        return True

    def data_received(self, data: bytes) -> None:
        """Remember the body of the newest request: no other can be incomplete."""
        super().data_received(data)
        if self._messages:
            self._newest = self._messages[-1][1]

    def _is_whole(self) -> bool:
        """Whether there is a request to answer, and nothing of it is missing."""
        idle = self._waiter is not None and not self._waiter.done()
        return not idle and self._newest is not None and self._newest.is_eof()

    def _gone(self) -> None:
        if self.transport:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Look no more for the client's end."""
        if self._hangup:
            self._hangup.cancel()
        super().connection_lost(exc)


class Runner(web.AppRunner):
    """Serves an application to such clients too, without a log of each request."""

    @property
    def server(self) -> web.Server | None:
        """What makes the protocol of each connection."""
        if (manager := super().server) is None:
            return None
        loop = asyncio.get_running_loop()

        def made() -> HalfOpen:
            return HalfOpen(manager, loop=loop, access_log=None)

        return cast("web.Server", made)  # sites do no more than call it
