"""The server's socket over TCP: TLS with certificates on both sides, `tcp://host:port`.

Both ends are relays between a TLS connection and a plain socket, so that whoever speaks over it has a file descriptor to wait
on, and may end one direction alone, as the input of `exec` does: TLS's close_notify goes each way by itself. Source: RFC 8446,
section 6.1; the folder of certificates is as dockerd(8) has it: ca.pem, cert.pem, key.pem.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import PystackError, UnreachableError

PORT = 2376
WITHIN_S = 15.0
PIECE = 1 << 16
log = logging.getLogger(__name__)


def certificates() -> Path:
    return Path(os.environ.get("PYSTACK_CERT_PATH", "") or Path.home() / ".pystack")


def _context(folder: Path, *, server: bool) -> ssl.SSLContext:
    """Raises PystackError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED  # of clients too: whoever speaks to the server is root on its nodes
    for name in ("ca.pem", "cert.pem", "key.pem"):
        if not (folder / name).is_file():
            raise PystackError(
                f"tcp:// is TLS with certificates on both sides: {folder / name} is missing (PYSTACK_CERT_PATH "
                "is the folder with ca.pem, cert.pem and key.pem)"
            )
    try:
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise PystackError(f"the certificates in {folder} are no good: {error}") from error
    return context


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        if parts.scheme == "tcp" and parts.hostname and parts.path in ("", "/"):
            return parts.hostname, parts.port or PORT
    except ValueError:
        pass
    raise PystackError(f"{url}: write tcp://host or tcp://host:port")


class _TlsRelay:
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
                    self._flush()  # the other side is told why
                raise
        self._flush()
        self._far.settimeout(None)

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
        """What comes over TLS, to the near end; its end is the end of the input there."""
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
            with contextlib.suppress(OSError):  # broken off: neither side shall wait for the other
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


def dial(url: str) -> socket.socket:
    """A connection to the server at tcp://… Raises PystackError, UnreachableError."""
    host, port = _address(url)
    context = _context(certificates(), server=False)
    try:
        far = socket.create_connection((host, port), WITHIN_S)
    except OSError as error:
        raise UnreachableError(f"{url}: {error.strerror or error}") from error
    mine, near = socket.socketpair()
    tunnel = _TlsRelay(near, far, context, host)
    try:
        tunnel.shake_hands()
    except OSError as error:
        far.close()
        raise UnreachableError(f"{url}: {_reason(error)}") from error
    threading.Thread(target=tunnel.run, daemon=True).start()
    return mine


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return str(error.strerror or error)


class TlsListener:
    """Takes connections at a tcp:// address to the socket at *path*, each by two threads of its own."""

    def __init__(self, url: str, path: Path) -> None:
        """Raises PystackError."""
        self._path = path
        self._context = _context(certificates(), server=True)
        host, port = _address(url)
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise PystackError(f"--listen {url}: {error.strerror or error}") from error
        threading.Thread(target=self._accept, name="tls", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who accepts
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
        tunnel = _TlsRelay(near, far, self._context, None)
        try:
            tunnel.shake_hands()
            near.connect(str(self._path))
        except OSError as error:
            log.warning("a connection from %s: %s", who, _reason(error))
            near.close()
            far.close()
            return
        tunnel.run()
