"""The client's end of the REST API: requests to a server, wherever it is, and its answers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator import LEADER, STALE
from orchestrator.cli.endpoint import control_socket, dial
from orchestrator.cli.http import Connection, Response
from orchestrator.cli.leader import (
    PAUSE_S,
    TAKEOVER_S,
    LeaderLostError,
    LostError,
    NoLeaderError,
    authorization,
    through_takeover,
)
from orchestrator.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from orchestrator.server.events import Event

T = TypeVar("T")
REPEATS = 3
"""How many servers may be lost while one wish is carried out."""


class Client:
    """One server, and one of its nodes for Engine API calls. *start* makes a server where none answers."""

    def __init__(self, *, start: bool = False, node: str = "local") -> None:
        self.path = control_socket()
        self.start = start
        self.base = f"/v1/nodes/{node}/engine"
        self._idle: list[Connection] = []
        self.trace = os.environ.get("TRACEPARENT", "")
        """The W3C traceparent that goes along with requests."""

    def at(self, node: str) -> Client:
        """The same server, with Engine API calls for *node*."""
        return Client(start=self.start, node=node)

    def _dial(self) -> socket.socket:
        try:
            return dial(self.path)
        except PermissionError:
            raise UnreachableError(f"no permission to use {self.path}: run as root, or join its group") from None
        except OSError:
            if not self.start or os.environ.get("PYSTACK_HOST"):
                raise UnreachableError(
                    f"no pystack server answers at {self.path}: `pystack up` or `pystack server` starts one"
                ) from None
            from orchestrator.cli.starting import start_server

            start_server(self.path)
            return dial(self.path)

    def _connection(self) -> Connection:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread may have it
                known = self._idle.pop()
                if known.is_idle():
                    return known
                known.close()
        return Connection(self._dial(), self._idle)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """The answer, its body unread. *body*: something for JSON, bytes, or an iterator of bytes. While no server leads, it is
        sent again, unless it is an iterator. Raises RefusedError."""
        sent = {**authorization(), **(headers or {})}
        if self.trace.isascii() and self.trace.isprintable() and self.trace:
            sent["traceparent"] = self.trace
        data: Any = body
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        target = _quoted(path) + (f"?{_encoded(query)}" if query else "")
        if hasattr(body, "__next__"):
            reply = self._send(self._connection(), method, target, sent, data)
        else:
            reply = self._through_takeover(lambda: self._send(self._connection(), method, target, sent, data))
        if stale := reply.getheader(STALE):
            seconds, _, why = stale.partition(" ")
            print(f"as it was {seconds} s ago: {why}", file=sys.stderr)
        return reply

    def _send(self, connection: Connection, method: str, target: str, headers: dict[str, str], body: Any) -> Response:
        """The answer of the server that is asked now. Raises RefusedError, UnreachableError."""
        try:
            reply = connection.request(method, target, headers, body)
            if reply.status >= 400:
                raise _refusal(reply)
        except OSError as error:
            connection.close()
            lost = UnreachableError if method == "GET" else LostError
            raise lost(f"the server at {self.path} went away: {error}") from error
        return reply

    def _through_takeover(self, attempt: Callable[[], T]) -> T:
        """What *attempt* returns, at the server that leads by then."""
        begun = False

        def again() -> T:
            nonlocal begun
            if begun:
                self._idle.clear()
                self.path = control_socket()
            begun = True
            return attempt()

        return through_takeover(again, several="," in os.environ.get("PYSTACK_HOST", ""))

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The decoded body of the answer, None if it is empty. Raises what `request` raises."""
        raw = self.request(method, path, **options).read()
        return json.loads(raw) if raw else None

    def lines(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """An answer of one JSON object a line. Raises RefusedError for a line that is an Engine API error."""
        for raw in self._raw_lines(self.request(method, path, **options)):
            line = json.loads(raw)
            if "error" in line and "event" not in line:
                raise RefusedError(str(line["error"]))
            yield line

    def events(self, path: str, *, repeat: bool = False, **options: Any) -> Iterator[Event]:
        """POST, and the events of the answer; the last one is a DoneEvent. With *repeat* it may be asked twice: where the
        server is lost, the one that leads next is asked. Raises RefusedError for an ErrorEvent, and UnreachableError if the
        stream ends before the server says that it is done."""
        # not a generator itself: the server is at work while the types of the events are imported
        try:
            reply = self.request("POST", path, **options)
        except LostError as error:
            if not repeat:
                raise
            reply = self._again(error, path, options)
        return self._to_the_end(reply, path, options) if repeat else self._events(reply)

    def _to_the_end(self, reply: Response, path: str, options: dict[str, Any]) -> Iterator[Event]:
        for _ in range(REPEATS):
            try:
                return (yield from self._events(reply))
            except UnreachableError as error:
                reply = self._again(error, path, options)
        yield from self._events(reply)

    def _again(self, error: UnreachableError, path: str, options: dict[str, Any]) -> Response:
        """POST at the server that leads now, once there is one. Raises *error* if none does in time."""
        print(f"{str(error).partition(':')[0]}: the next one is asked to go on", file=sys.stderr)
        deadline = time.monotonic() + TAKEOVER_S
        while True:
            self._idle.clear()
            try:
                self.path = control_socket()
                return self.request("POST", path, **options)
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise error from None
                time.sleep(PAUSE_S)

    def _events(self, reply: Response) -> Iterator[Event]:
        import msgspec

        from orchestrator.server.events import DoneEvent, ErrorEvent, Event

        decoder = msgspec.json.Decoder(Event)
        for raw in self._raw_lines(reply):
            try:
                event = decoder.decode(raw)
            except msgspec.ValidationError:
                continue  # of a newer server: it says what failed in `done` too
            if isinstance(event, ErrorEvent):
                raise LeaderLostError(event.message) if event.again else RefusedError(event.message)
            yield event
            if isinstance(event, DoneEvent):
                return
        raise UnreachableError("the server went away before this was done: run the command again, it goes on from there")

    def _raw_lines(self, reply: Response) -> Iterator[bytes]:
        try:
            while line := reply.readline():
                yield line
        except OSError as error:
            raise UnreachableError(f"the server at {self.path} went away: {error}") from error

    def engine(self, method: str, path: str, **options: Any) -> Any:
        """As `json`, for a *path* of the node's Docker Engine API."""
        return self.json(method, self.base + path, **options)

    def hijack(self, path: str, body: Any) -> socket.socket:
        """POST and take the connection over. Raises RefusedError."""
        return self._through_takeover(lambda: self._hijack(path, body))

    def _hijack(self, path: str, body: Any) -> socket.socket:
        sock = self._dial()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json", **authorization()}
        try:
            reply = Connection(sock).request("POST", path, headers, json.dumps(body).encode())
            if reply.status not in (101, 200):
                raise _refusal(reply)
        except OSError as error:
            sock.close()
            raise LostError(f"the server at {self.path} went away: {error}") from error
        return sock


def _refusal(reply: Response) -> RefusedError:
    raw = reply.read()
    places: Sequence[str] = ()
    try:
        document = json.loads(raw)
        message, places = str(document["message"]), document.get("places", ())
    except (ValueError, KeyError, TypeError):
        message = raw.decode(errors="replace") or f"status {reply.status}"
    leader = reply.headers.get(LEADER.lower())
    error = RefusedError(message, reply.status) if leader is None else NoLeaderError(message, reply.status, leader)
    for place in places:  # of a fault of the node's own: `--debug` shows them
        error.add_note(f"on the node, in a worker: {place}")
    return error


PLAIN = re.compile(r"[\w.~/:@-]*", re.ASCII)
"""What needs no quoting in a path, nor in a query: then the module that quotes is not loaded. Source: RFC 3986, section 3."""


def name_in_path(name: str) -> str:
    """*name* of an image as a part of a URL's path; the characters /, : and @ stay."""
    if PLAIN.fullmatch(name):
        return name
    from urllib.parse import quote

    return quote(name, safe="/:@")


def _quoted(path: str) -> str:
    """*path*, in which names are quoted already where they must be."""
    if PLAIN.fullmatch(path):
        return path
    from urllib.parse import quote

    return quote(path, safe="/:@%?=&+,;~!$'()*[]")


def _encoded(query: dict[str, Any]) -> str:
    if all(isinstance(value, str | int | float) and PLAIN.fullmatch(str(value)) for value in query.values()):
        return "&".join(f"{name}={value}" for name, value in query.items())
    from urllib.parse import urlencode

    return urlencode(query, doseq=True)


def chunks(file: Any) -> Iterator[bytes]:
    """A file in pieces."""
    while data := file.read(1 << 18):
        yield data
