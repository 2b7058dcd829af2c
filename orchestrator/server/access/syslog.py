"""Lines of the log of changes to a syslog, by a thread of its own: a server there that hangs keeps nobody from a change.

Source: RFC 5424 (facility 13, log audit), RFC 3164; JSON behind a tag.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import socket
from urllib.parse import urlsplit

import msgspec

from orchestrator.server.access.log import AuditLine

WAITING = 10_000
"""Lines that wait at most, while the syslog does not answer."""
AUDIT = 13
log = logging.getLogger(__name__)


class Shipper:
    """Sends lines to the syslog at *url*: unix:///dev/log, udp://host:514 or tcp://host:601."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
        self._handler: logging.handlers.SysLogHandler | None = None
        self._listener = logging.handlers.QueueListener(self._queue, _Late(self))
        self._listener.start()

    def __call__(self, line: AuditLine) -> None:
        """Send *line*, in a moment."""
        words = f"pystack-audit: {msgspec.json.encode(line).decode()}"
        try:
            self._queue.put_nowait(logging.LogRecord("audit", logging.INFO, "", 0, words, None, None))
        except queue.Full:
            log.warning("the syslog does not take the log of changes: %s", words)

    def send(self, record: logging.LogRecord) -> None:
        """Send *record*, over a new connection where there is none. Raises OSError."""
        if self._handler is None:
            address = (
                self._parts.path if self._parts.scheme == "unix" else (self._parts.hostname or "", self._parts.port or 514)
            )
            kind = socket.SOCK_STREAM if self._parts.scheme == "tcp" else socket.SOCK_DGRAM
            self._handler = logging.handlers.SysLogHandler(address, facility=AUDIT, socktype=kind)
            self._handler.append_nul = False  # servers show it as a part of the message
            if kind == socket.SOCK_STREAM:
                self._handler.setFormatter(logging.Formatter("%(message)s\n"))  # RFC 6587: lines
            self._handler.handleError = self._lost  # type: ignore[method-assign]
        self._handler.emit(record)

    def _lost(self, record: logging.LogRecord) -> None:
        log.warning("the syslog does not answer: %s", record.getMessage())
        if self._handler:
            self._handler.close()
        self._handler = None

    def close(self) -> None:
        """Send what waits, and stop."""
        self._listener.stop()
        if self._handler:
            self._handler.close()


class _Late(logging.Handler):
    """A handler that connects when there is something to say."""

    def __init__(self, shipper: Shipper) -> None:
        super().__init__()
        self._shipper = shipper

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._shipper.send(record)
        except OSError as error:
            log.warning("the syslog does not answer (%s): %s", error, record.getMessage())
