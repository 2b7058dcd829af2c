"""HTTP/1.1 as the client needs it: requests over a connected socket, answers read as they come.

The standard library's http.client takes 14 ms to import, for the mail parser that reads its headers: Python starts in
10. Source: RFC 9112 (messages), RFC 9110 (semantics).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

LINE_MAX = 1 << 16
HEADERS_MAX = 200


class ProtocolError(ConnectionError):
    """The other side ended before its answer did, or does not speak HTTP."""


class Response:
    """An answer: *status*, headers, and a body that is still to be read."""

    def __init__(self, connection: Connection, *, head: bool) -> None:
        self._connection = connection
        self._file = connection.file
        while True:
            self.status, keep = self._status_line()
            self.headers = self._headers()
            if self.status >= 200 or self.status == 101:
                break
        self._left: int | None = None
        """Bytes of the body, or of its current chunk; None for all until the other side closes."""
        self._chunked = "chunked" in self.getheader("Transfer-Encoding", "").lower()
        self._ended = False
        if head or self.status in (101, 204, 304):
            self._left, self._chunked = 0, False
        elif self._chunked:
            self._left = 0
        elif length := self.getheader("Content-Length"):
            self._left = _number(length, 10)
        keep = self.getheader("Connection", "keep-alive" if keep else "close").lower() != "close"
        self._keeps = keep and self._left is not None and self.status != 101
        if self._left == 0 and not self._chunked and self.status != 101:
            self._end()

    def _status_line(self) -> tuple[int, bool]:
        words = self._line().split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise ProtocolError("what answers does not speak HTTP")
        return _number(words[1].decode("latin-1"), 10), words[0] != b"HTTP/1.0"

    def _headers(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for _ in range(HEADERS_MAX):
            line = self._line()
            if not line:
                return out
            name, _, value = line.decode("latin-1").partition(":")
            out[name.lower()] = value.strip()
        raise ProtocolError("the answer has too many headers")

    def _line(self) -> bytes:
        line: bytes = self._file.readline(LINE_MAX)
        if not line.endswith(b"\n"):
            raise ProtocolError("the connection ended")
        return line.rstrip(b"\r\n")

    def getheader(self, name: str, default: str = "") -> str:
        """The header *name*, in any case of letters; *default* if it is missing."""
        return self.headers.get(name.lower(), default)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._keeps:
                self._connection.release()
            else:
                self._connection.close()

    def close(self) -> None:
        """Close the connection, even if a part of the body is still to come: the server notices."""
        self._connection.close()

    def _remaining(self) -> int | None:
        """Bytes that may be read now, None for as many as come; 0 at the end of the body."""
        if self._ended:
            return 0
        if self._chunked and self._left == 0:
            line = self._line() or self._line()  # a chunk ends with an empty line
            self._left = _number(line.partition(b";")[0].decode("latin-1"), 16)
            if self._left == 0:
                self._headers()
                self._end()
        return self._left

    def _consume(self, data: bytes, room: int | None) -> bytes:
        """*data*, of the *room* that there was for it, is off the connection."""
        if room is None:
            if not data:
                self._end()
        elif not data:
            raise ProtocolError("the connection ended")
        else:
            self._left = room - len(data)
            if self._left == 0 and not self._chunked:
                self._end()
        return data

    def read1(self, limit: int) -> bytes:
        """What there is, at most *limit* bytes; b"" at the end alone."""
        room = self._remaining()
        if room == 0:
            return b""
        return self._consume(self._file.read1(limit if room is None else min(limit, room)), room)

    def read(self, count: int | None = None) -> bytes:
        """*count* bytes, or fewer at the end; all without a count."""
        parts: list[bytes] = []
        missing = count
        while missing is None or missing > 0:
            data = self.read1(1 << 16 if missing is None else missing)
            if not data:
                break
            parts.append(data)
            missing = None if missing is None else missing - len(data)
        return b"".join(parts)

    def readline(self) -> bytes:
        """Up to and including the next newline, or to the end."""
        parts: list[bytes] = []
        while (room := self._remaining()) != 0:
            part = self._consume(self._file.readline(-1 if room is None else room), room)
            parts.append(part)
            if part.endswith(b"\n"):
                break
        return b"".join(parts)


def _number(text: str, base: int) -> int:
    digits = "0123456789abcdef"[:base]
    text = text.strip().lower()
    if not text or text.strip(digits):
        raise ProtocolError(f"the answer has no number where one must be: {text!r}")
    return int(text, base)


class _Exact(socket.SocketIO):
    """Reads lines without taking a byte of what is behind them: `readline` looks before it takes (io.IOBase)."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "rb")
        self._peek = sock.recv

    def peek(self, size: int) -> bytes:
        del size
        return self._peek(LINE_MAX, socket.MSG_PEEK)

    def read1(self, size: int) -> bytes:
        return self.read(size) or b""


class Connection:
    """A socket, and how it is read: ahead, or not a byte more than the answer has where the socket is wanted afterwards.

    *idle* is where it waits for its next request."""

    def __init__(self, sock: socket.socket, idle: list[Connection] | None = None) -> None:
        self.sock = sock
        self.file: Any = sock.makefile("rb", 1 << 16) if idle is not None else _Exact(sock)
        self._idle = idle

    def release(self) -> None:
        """Its answer is read to the end: the next request may have it."""
        if self._idle is not None:
            self._idle.append(self)

    def is_idle(self) -> bool:
        """Whether nothing has come since its last answer, not even the end."""
        try:
            self.sock.setblocking(False)
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.sock.setblocking(True)
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the socket."""
        self.file.close()
        self.sock.close()

    def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterator[bytes] | None) -> Response:
        """Raises OSError, of which BrokenError is one."""
        framed = dict(headers)
        if isinstance(body, bytes):
            framed["Content-Length"] = str(len(body))
        elif body is not None:
            framed["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            framed["Content-Length"] = "0"
        try:
            head = request_head(method, target, framed)
            self.sock.sendall(head + body if isinstance(body, bytes) else head)
            if body is not None and not isinstance(body, bytes):
                for piece in body:
                    if piece:
                        self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have said why it wants no more of this
        return Response(self, head=method == "HEAD")


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request's first line and *headers*, encoded. Raises ValueError if one of them contains a line break."""
    lines = [f"{method} {target} HTTP/1.1", "Host: pystack", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError(f"{method} {target}: a request's head has a line for each thing")
    return "\r\n".join([*lines, "", ""]).encode()
