"""A connection taken over from HTTP: after 101 both sides send bytes as they like (Engine API: attach, exec)."""

from __future__ import annotations

import struct

from aiohttp import web

from agent.takeover import Taken, Written


class Hijacked(Written):
    """The answer that takes the connection over. `reader` gives what the client sends, `send` writes to it."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        super().__init__(status=101)
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


def frame(stream: int, data: bytes) -> bytes:
    """One frame of Docker's multiplexed stream: type, three zero bytes, length, payload."""
    return struct.pack(">BxxxI", stream, len(data)) + data
