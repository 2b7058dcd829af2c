"""A connection taken over from HTTP: after 101 both sides send bytes as they like (Engine API: attach, exec)."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import time

from aiohttp import web

from agent.takeover import Taken, Written

HEAD_S = 2.0


class Hijacked(Written):
    """The answer that takes the connection over. `reader` gives what the client sends, `send` writes to it."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        super().__init__(status=101)
        self._taken = Taken(request)
        self._first = asyncio.Lock()
        self._begun = False
        self.reader = self._taken.reader
        line = "HTTP/1.1 101 UPGRADED" if request.headers.get("Upgrade") else "HTTP/1.1 200 OK"
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if request.headers.get("Upgrade") else ""
        head = f"{line}\r\nContent-Type: {content_type}\r\n{upgrade}\r\n"
        self._taken.transport.write(head.encode())

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError where nobody is there."""
        if not self._begun:
            async with self._first:
                if not self._begun:
                    await self._head_is_read()
                self._begun = True
        await self._taken.send(data)

    async def _head_is_read(self) -> None:
        """Wait, a moment at most, until the client has read the head, all by itself: docker-py reads into a buffer, and looks
        behind it for what comes next. Source: unix(7), SIOCOUTQ."""
        sock = self._taken.transport.get_extra_info("socket")
        until = time.monotonic() + HEAD_S
        while sock.family == socket.AF_UNIX and time.monotonic() < until and not self.closed:
            if not int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder):
                return
            await asyncio.sleep(0.0005)

    @property
    def closed(self) -> bool:
        """The client went away."""
        return self._taken.transport.is_closing()


def frame(stream: int, data: bytes) -> bytes:
    """One frame of Docker's multiplexed stream: type, three zero bytes, length, payload."""
    return struct.pack(">BxxxI", stream, len(data)) + data
