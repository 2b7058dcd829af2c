"""TLS connections in front of plain sockets, of which either side may end one direction only, as the input of `exec` does.

A relay between the two: the program in front has a file descriptor to wait on, and TLS's close_notify is passed on for each
direction separately, which asyncio's own TLS cannot do. Source: RFC 8446, section 6.1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

WITHIN_S = 15.0
PIECE = 1 << 16
log = logging.getLogger(__name__)


class Tunnel:
    """One TLS connection over *far*, and the plain end of it, *near*."""

    def __init__(self, near: socket.socket, far: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self._near, self._far = near, far
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=name is None, server_hostname=name)
        self._state = threading.Condition()
        self._order = threading.Lock()
        self._ended = False

    def shake_hands(self) -> None:
        """Raises OSError, of which ssl.SSLError is one."""
        self._far.settimeout(WITHIN_S)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the other side learns why
                raise
        self._flush()
        self._far.settimeout(None)

    @property
    def peer(self) -> str:
        """The common name of the other side's certificate, "" if it showed none."""
        subject: Any = (self._tls.getpeercert() or {}).get("subject", ())
        return next((str(value) for part in subject for kind, value in part if kind == "commonName"), "")

    def run(self) -> None:
        """Carry bytes both ways until both have ended."""
        outward = threading.Thread(target=self._outward, daemon=True)
        outward.start()
        try:
            self._inward()
        finally:
            outward.join()
            self._near.close()
            self._far.close()

    def _flush(self) -> None:
        if data := self._out.read():
            self._far.sendall(data)

    def _receive(self) -> None:
        data = self._far.recv(PIECE)
        with self._state:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()

    def _inward(self) -> None:
        """Copy from TLS to the near end; the end of one is the end of the other."""
        try:
            while True:
                with self._state:
                    try:
                        data = self._tls.read(PIECE)
                    except ssl.SSLWantReadError:
                        data = None
                        self._state.notify_all()
                if data is None:
                    self._receive()
                elif data:
                    self._near.sendall(data)
                else:
                    break
        except OSError:
            with contextlib.suppress(OSError):  # broken off: neither side waits for the other
                self._near.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_WR)
        with self._state:
            self._ended = True
            self._state.notify_all()

    def _outward(self) -> None:
        try:
            while data := self._near.recv(PIECE):
                with self._order:
                    with self._state:
                        self._tls.write(data)
                    self._flush()
            with self._order:
                with self._state, contextlib.suppress(ssl.SSLWantReadError):
                    # it sends close_notify and looks for theirs at once: what came before that must be read out by now
                    self._state.wait_for(lambda: self._ended or (not self._in.pending and not self._tls.pending()))
                    self._tls.unwrap()
                self._flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._far.shutdown(socket.SHUT_RDWR)


def reason(error: OSError) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return str(error.strerror or error)


MARK = "\0pystack"
LONGEST = 100
"""Bytes of a mark: sun_path has 108 (unix(7))."""


def mark(near: socket.socket, way: str, address: str, name: str = "") -> None:
    """Give *near* a name by which the server behind its socket learns of a connection: the *way* that it came, the *address* at
    the other end, and the *name* there. Source: unix(7), abstract sockets."""
    near.bind("/".join((MARK, os.urandom(6).hex(), way, address, name)).encode()[:LONGEST])


def origin_of(peer: object) -> tuple[str, str, str]:
    """(way, address, name) of a connection whose other end has the name *peer* (getpeername(2)); all "" if it has no mark."""
    text = peer.decode(errors="replace") if isinstance(peer, bytes) else peer if isinstance(peer, str) else ""
    parts = text.split("/", 4)
    return (parts[2], parts[3], parts[4]) if len(parts) == 5 and parts[0] == MARK else ("", "", "")


class Listener:
    """Takes connections at *listening* to the socket at *path*, each by two threads of its own."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext, path: Path) -> None:
        self._socket, self._context, self._path = listening, context, path
        threading.Thread(target=self._accept, name="tls", daemon=True).start()

    def close(self) -> None:
        """Close the socket and wake a thread that accepts on it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                far, address = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(far, address[0]), daemon=True).start()

    def _serve(self, far: socket.socket, who: str) -> None:
        near = socket.socket(socket.AF_UNIX)
        tunnel = Tunnel(near, far, self._context, None)
        try:
            tunnel.shake_hands()
            mark(near, "tls", who, tunnel.peer)
            near.connect(str(self._path))
        except OSError as error:
            log.warning("a connection from %s: %s", who, reason(error))
            near.close()
            far.close()
            return
        tunnel.run()
