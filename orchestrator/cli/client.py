"""The client's end of the REST API: HTTP over the control socket, with nothing but the standard library.

aiohttp takes 150 ms to import, which is more than `pystack ps` may take in all.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.errors import PystackError, Refused, Unreachable

# http.client works without TLS, which a unix socket does not need: half of its import time is OpenSSL's
if "ssl" in sys.modules:
    import http.client
else:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import http.client
    finally:
        del sys.modules["ssl"]



STALE = "X-Pystack-Stale"
"""A server that nobody leads answers from memory: seconds since then, and why."""


Place = Path | str
"""A socket of this host, or ssh://user@host, or tcp://host:port."""


def control_socket() -> Place:
    """Where the server listens: PYSTACK_HOST, the one that leads where that names several (unix://a,ssh://root@b), or the
    instance's own place."""
    host = os.environ.get("PYSTACK_HOST", "")
    words = host.split(",") if host else []
    places: list[Place] = [Path(w[7:]) if w.startswith("unix://") else w for w in words]
    if strange := [w for w in words if not w.startswith(("unix://", "ssh://", "tcp://"))]:
        raise PystackError(f"PYSTACK_HOST={strange[0]}: write unix:///path, ssh://user@host or tcp://host:port")
    if places:
        return places[0] if len(places) == 1 else max(places, key=_standing)
    if root := os.environ.get("PYSTACK_ROOT"):
        return Path(root) / "run" / "pystack.sock"
    if os.geteuid() == 0:
        return Path("/run/pystack/pystack.sock")
    return Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")) / "pystack/pystack.sock"


def _standing(path: Place) -> int:
    """2 where the server leads, 1 where it remembers what was, while nobody can lead; otherwise 0."""
    connection = _Connection(path)
    try:
        connection.request("GET", "/v1/version")
        reply = connection.getresponse()
        return 0 if reply.status != 200 else 1 if reply.getheader(STALE) else 2
    except (OSError, http.client.HTTPException, Unreachable):
        return 0
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Place) -> None:
        super().__init__("pystack")
        self._path = path

    def connect(self) -> None:
        if isinstance(self._path, str):
            if self._path.startswith("tcp://"):
                from orchestrator import tls as way
            else:
                from orchestrator.cli import remote as way  # type: ignore[no-redef]
            self.sock = way.dial(self._path)
            return
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class Client:
    """One server, and one of its nodes for Engine API calls. *start* makes a server where none answers."""

    def __init__(self, *, start: bool = False, node: str = "local") -> None:
        self.path = control_socket()
        self.start = start
        self.base = f"/v1/nodes/{node}/engine"

    def at(self, node: str) -> Client:
        """The same server, with Engine API calls for *node*."""
        return Client(start=self.start, node=node)

    def _connect(self) -> _Connection:
        connection = _Connection(self.path)
        try:
            connection.connect()
        except PermissionError:
            raise Unreachable(f"no permission to use {self.path}: run as root, or join its group") from None
        except OSError:
            if not self.start or os.environ.get("PYSTACK_HOST"):
                raise Unreachable(
                    f"no pystack server answers at {self.path}: `pystack up` or `pystack server` starts one"
                ) from None
            assert isinstance(self.path, Path)
            start_server(self.path)
            connection.connect()
        return connection

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """The answer, its body unread. *body*: something for JSON, bytes, or an iterable of bytes. Raises Refused."""
        connection = self._connect()
        sent = dict(headers or {})
        data: Any = body
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        try:
            connection.request(method, target, body=data, headers=sent, encode_chunked=hasattr(body, "__next__"))
            reply = connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            raise Unreachable(f"the server at {self.path} went away: {error}") from error
        if reply.status >= 400:
            raw = reply.read()
            try:
                message = str(json.loads(raw)["message"])
            except (ValueError, KeyError):
                message = raw.decode(errors="replace") or f"status {reply.status}"
            raise Refused(message, reply.status)
        if stale := reply.getheader(STALE):
            seconds, _, why = stale.partition(" ")
            print(f"as it was {seconds} s ago: {why}", file=sys.stderr)
        return reply

    def json(self, method: str, path: str, **options: Any) -> Any:
        raw = self.request(method, path, **options).read()
        return json.loads(raw) if raw else None

    def lines(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """An answer of one JSON object a line. Raises Refused for one that is an error, Unreachable where the server goes away
        before it says that it is done."""
        reply = self.request(method, path, **options)
        ends = method == "POST" and path.startswith("/v1/") and not path.startswith(f"{self.base}/")
        try:
            while line := reply.readline():
                event = json.loads(line)
                if event.get("event") == "error":
                    raise Refused(str(event["message"]))
                if "error" in event and "event" not in event:
                    raise Refused(str(event["error"]))
                yield event
                if event.get("event") == "done":
                    return
            if ends:
                raise Unreachable("the server went away before this was done: run the command again, it goes on from there")
        except (http.client.HTTPException, OSError) as error:
            raise Unreachable(f"the server at {self.path} went away: {error or type(error).__name__}") from error

    def engine(self, method: str, path: str, **options: Any) -> Any:
        return self.json(method, self.base + path, **options)

    def hijack(self, path: str, body: Any) -> socket.socket:
        """POST and take the connection over."""
        connection = self._connect()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        connection.request("POST", path, body=json.dumps(body).encode(), headers=headers)
        raw = connection.sock
        assert raw is not None
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = raw.recv(1)
            if not byte:
                break
            head += byte
        status = int(head.split(b" ", 2)[1]) if b" " in head else 0
        if status not in (101, 200):
            length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                           if line.lower().startswith(b"content-length")), 0)
            text = raw.recv(length) if length else b""
            try:
                message = str(json.loads(text)["message"])
            except (ValueError, KeyError):
                message = f"status {status}"
            raise Refused(message, status)
        return raw


def start_server(path: Path) -> None:
    """Start the all-in-one server in the background, and wait until it answers."""
    state = _log_directory(path)
    log = state / "server.log"
    with log.open("ab") as out:
        import subprocess

        process = subprocess.Popen(
            [sys.executable, "-E", "-s", "-m", "orchestrator.server.embedded"], stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, start_new_session=True, cwd="/",
        )
        begin = out.tell()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        probe = _Connection(path)
        try:
            probe.connect()
            probe.close()
            return
        except OSError:
            time.sleep(0.01)
        if process.poll() is not None:
            with log.open("rb") as file:
                file.seek(begin)
                said = file.read().decode(errors="replace").strip()
            # its own last words, in all their lines; of a fault of ours the last one tells most
            _, own, words = said.rpartition("pystack server: ")
            last = words if own else next(reversed(said.splitlines()), "it said nothing")
            raise Unreachable(f"the server did not start: {last} (see {log})")
    raise Unreachable(f"the server does not answer after 30 s: see {log}")


def _log_directory(path: Path) -> Path:
    root = os.environ.get("PYSTACK_ROOT")
    directory = Path(root) if root else Path("/var/log/pystack") if os.geteuid() == 0 else path.parent
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def demultiplex(read: Any) -> Iterator[tuple[int, bytes]]:
    """(stream, payload) of Docker's multiplexed stream; *read(n)* gives exactly n bytes, or fewer at the end."""
    while len(head := read(8)) == 8:
        length = int.from_bytes(head[4:], "big")
        yield head[0], read(length)


def name_in_path(name: str) -> str:
    return quote(name, safe="/:@")


def chunks(file: Any) -> Iterable[bytes]:
    """A file in pieces, as a generator that http.client sends chunked."""
    while data := file.read(1 << 18):
        yield data
