"""A connection taken over from HTTP: after 101 both sides send bytes as they like (Engine API: attach, exec)."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import sys
import termios
import time

from aiohttp import web

from agent.contract.printable import quoted
from agent.contract.takeover import Taken, Written
from agent.errors import BadRequestError

HEAD_S = 2.0
RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
DETACH_KEYS = "ctrl-p,ctrl-q"


class Hijacked(Written):
    """The answer that takes the connection over. `reader` reads from the client, `send` writes to it."""

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
        """Raises ConnectionError if the client is gone."""
        if not self._begun:
            async with self._first:
                if not self._begun:
                    await self._head_is_read()
                self._begun = True
        await self._taken.send(data)

    async def _head_is_read(self) -> None:
        """Wait, a moment at most, until the client has read the head separately: docker-py reads it into a buffer, and expects
        what follows outside that. Source: unix(7), SIOCOUTQ."""
        sock = self._taken.transport.get_extra_info("socket")
        until = time.monotonic() + HEAD_S
        while sock.family == socket.AF_UNIX and time.monotonic() < until and not self.closed:
            if not int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder):
                return
            await asyncio.sleep(0.0005)

    @property
    def closed(self) -> bool:
        """The client went away, rather than only ending its input."""
        return self._taken.transport.is_closing() or self._taken.lost.is_set()

    async def lost(self) -> None:
        """Wait until the client goes away, rather than only ending its input."""
        await self._taken.lost.wait()


class Keys:
    """The input of a terminal, watched for the key sequence that detaches."""

    def __init__(self, text: str) -> None:
        """*text* as Docker has it: letters, or ctrl- and one of `a-z @ [ \\ ] ^ _`, between commas; "" is the default.

        Raises BadRequestError."""
        try:
            self._wanted = b"".join(map(_key, (text or DETACH_KEYS).split(",")))
        except ValueError:
            raise BadRequestError(f"Invalid escape keys ({quoted(text)}) provided") from None
        self._held = b""

    def passed(self, data: bytes) -> tuple[bytes, bool]:
        """The part of *data*, and of input held back before, to pass on; and whether the sequence was typed."""
        data, self._held = self._held + data, b""
        at = data.find(self._wanted)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._wanted) - 1, len(data)), 0, -1):
            if self._wanted.startswith(data[-length:]):
                data, self._held = data[:-length], data[-length:]
                break
        return data, False


def _key(word: str) -> bytes:
    if re.fullmatch(r"[\x21-\x7e]", word):
        return word.encode()
    if match := re.fullmatch(r"(?i:ctrl)-([a-zA-Z@\[\\\]^_])", word):
        return bytes([ord(match[1].upper()) - 64])
    raise ValueError(word)
