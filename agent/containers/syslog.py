"""`logging: {driver: syslog}`: sends a container's output to a syslog server as it is written to its log.

`logs` still reads the log file; this follows it and keeps its position, so that a restarted agent sends the lines of the
meantime, and at most the last few lines twice. An unreachable server is tried again; the lines wait in the log. Source: RFC
5424 and 3164 (messages), 6587 (over TCP); docker-run(1), --log-driver=syslog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agent import files
from agent.containers import logs
from agent.errors import BadRequestError

FACILITIES = (
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "audit",
    "alert",
    "clock",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
)
OPTIONS = ("syslog-address", "syslog-facility", "syslog-format", "tag", "max-size", "max-file")
INFO, ERROR = 6, 3
AGAIN_S, KEEP_EVERY = 1.0, 100
log = logging.getLogger(__name__)


class SyslogAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A syslog server and the form of messages. *scheme* is udp, tcp or unix; *place* is (host, port) or a path."""

    scheme: str
    place: tuple[str, int] | str
    facility: int
    tag: str
    dated: bool
    """RFC 3164 instead of 5424."""

    @classmethod
    def of(cls, options: Mapping[str, str], name: str) -> SyslogAddress:
        """Raises BadRequestError with the option that is wrong."""
        address = options.get("syslog-address") or "unix:///dev/log"
        parts = urlsplit(address)
        try:
            port = parts.port or 514
        except ValueError:
            port = 0
        if parts.scheme not in ("udp", "tcp", "unix", "unixgram") or not port or not (parts.hostname or parts.path):
            raise BadRequestError(f"log option syslog-address {address!r}: udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH")
        facility = options.get("syslog-facility", "daemon")
        if facility not in FACILITIES:
            raise BadRequestError(f"log option syslog-facility {facility!r}: one of {', '.join(FACILITIES)}")
        format_ = options.get("syslog-format", "rfc5424")
        if format_ not in ("rfc5424", "rfc5424micro", "rfc3164"):
            raise BadRequestError(f"log option syslog-format {format_!r}: rfc5424 or rfc3164")
        local = parts.scheme.startswith("unix")
        return cls(
            scheme="unix" if local else parts.scheme,
            place=parts.path if local else (parts.hostname or "", port),
            facility=FACILITIES.index(facility),
            tag=(options.get("tag") or name)[:48],
            dated=format_ == "rfc3164",
        )

    def message(self, line: logs.Line) -> bytes:
        """*line* as a syslog message, by RFC 5424, or dated as by RFC 3164."""
        priority = self.facility * 8 + (ERROR if line.stream == 2 else INFO)
        text = line.text.rstrip(b"\n")
        host = socket.gethostname()
        if self.dated:
            import datetime

            when = datetime.datetime.fromtimestamp(logs.instant(line.time), datetime.UTC)
            return f"<{priority}>{when:%b} {when.day:2} {when:%H:%M:%S} {host} {self.tag}: ".encode() + text
        head, _, rest = line.time.partition(".")
        stamp = f"{head}.{rest[:6]}{rest[9:]}" if rest else head  # six digits are all that the RFC allows
        return f"<{priority}>1 {stamp} {host} {self.tag} - - - ".encode() + text


class SyslogForwarder:
    """Forwards the lines of containers."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, ident: str, log_file: Path, target: SyslogAddress, ended: Callable[[], bool]) -> None:
        """Ship the lines of *log_file* to *target* until *ended* is true; a second call for *ident* does nothing."""
        if ident not in self._tasks:
            self._tasks[ident] = asyncio.create_task(_ship(log_file, target, ended), name=f"syslog of {ident[:12]}")
            self._tasks[ident].add_done_callback(lambda _: self._tasks.pop(ident, None))

    async def close(self) -> None:
        """End all shipping."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ship(log_file: Path, target: SyslogAddress, ended: Callable[[], bool]) -> None:
    """Send line after line until the container has *ended* and all is sent."""
    note = log_file.with_name("syslog.sent")
    sent = note.read_text() if note.exists() else ""
    out: _SyslogConnection | None = None
    begun: dict[int, bytes] = {}
    count = 0
    try:
        async for line in logs.read(log_file, follow=True, since=sent, ended=ended):
            if line is logs.IDLE:
                continue
            if line.time <= sent:
                continue
            if not line.text.endswith(b"\n"):  # a part of a long line
                begun[line.stream] = begun.get(line.stream, b"") + line.text
                continue
            whole = logs.Line(line.time, line.stream, begun.pop(line.stream, b"") + line.text)
            while True:
                try:
                    out = out or await _SyslogConnection.open(target)
                    await out.send(target.message(whole))
                    break
                except OSError as error:
                    if out is None:
                        log.warning("syslog at %s: %s; its lines wait in %s", target.place, error.strerror or error, log_file)
                    out = None
                    await asyncio.sleep(AGAIN_S)
            sent, count = line.time, count + 1
            if count % KEEP_EVERY == 0:
                files.write_atomically(note, sent.encode())
    finally:
        if sent and note.parent.exists():
            files.write_atomically(note, sent.encode())
        if out:
            out.close()


class _SyslogConnection:
    def __init__(self, sock: socket.socket, stream: bool) -> None:
        self._socket, self._stream = sock, stream

    @classmethod
    async def open(cls, target: SyslogAddress) -> _SyslogConnection:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM if target.scheme == "tcp" else socket.SOCK_DGRAM
        family, place = socket.AF_UNIX, target.place
        if isinstance(place, tuple):
            found = await loop.getaddrinfo(*place, type=kind)
            family, place = found[0][0], (str(found[0][4][0]), int(found[0][4][1]))
        sock = socket.socket(family, kind)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(5):
                await loop.sock_connect(sock, place)
        except BaseException:
            sock.close()
            raise
        return cls(sock, kind == socket.SOCK_STREAM)

    async def send(self, message: bytes) -> None:
        data = b"%d %s" % (len(message), message) if self._stream else message  # RFC 6587, octet counting
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
