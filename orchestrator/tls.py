"""The server's socket over TCP: TLS with certificates on both sides, `tcp://host:port`, or `https://host:port`.

Both ends are relays between a TLS connection and a plain socket. Source: the folder of certificates is as dockerd(8) has it:
ca.pem, cert.pem, key.pem.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from agent.contract import tunnel
from orchestrator.errors import PystackError, UnreachableError

PORT = 2376


def certificates() -> Path:
    """The folder of the client's key and certificates: PYSTACK_CERT_PATH, or ~/.pystack."""
    return Path(os.environ.get("PYSTACK_CERT_PATH", "") or Path.home() / ".pystack")


TOKEN = "PYSTACK_TOKEN"
"""The variable of a client's token."""


def token() -> str:
    """The client's token, "" if it has none: then a certificate says who it is."""
    return os.environ.get(TOKEN, "").strip()


def _web_context(folder: Path) -> ssl.SSLContext:
    """For clients that show a token, or sign in. Raises PystackError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in ("cert.pem", "key.pem"):
        if not (folder / name).is_file():
            raise PystackError(f"--web needs a certificate: {folder / name} is missing (PYSTACK_CERT_PATH is its folder)")
    try:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise PystackError(f"the certificate in {folder} is no good: {error}") from error
    return context


def _token_context(folder: Path) -> ssl.SSLContext:
    """Of a client with a token: the server is known by ca.pem if it is there, or else as any on the web. Raises
    PystackError."""
    authority = folder / "ca.pem"
    try:
        return ssl.create_default_context(cafile=str(authority) if authority.is_file() else None)
    except (OSError, ssl.SSLError) as error:
        raise PystackError(f"{authority} is no good: {error}") from error


def _context(folder: Path, *, server: bool) -> ssl.SSLContext:
    """Raises PystackError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED  # of clients too: a client of the server is root on its nodes
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
        if parts.scheme in ("tcp", "https") and parts.hostname and parts.path in ("", "/"):
            return parts.hostname, parts.port or PORT
    except ValueError:
        pass
    raise PystackError(f"{url}: write tcp://host or tcp://host:port")


def dial(url: str) -> socket.socket:
    """A connection to the server at tcp://… Raises PystackError, UnreachableError."""
    host, port = _address(url)
    context = _token_context(certificates()) if token() else _context(certificates(), server=False)
    try:
        far = socket.create_connection((host, port), tunnel.WITHIN_S)
    except OSError as error:
        raise UnreachableError(f"{url}: {error.strerror or error}") from error
    mine, near = socket.socketpair()
    way = tunnel.Tunnel(near, far, context, host)
    try:
        way.shake_hands()
    except OSError as error:
        far.close()
        raise UnreachableError(f"{url}: {tunnel.reason(error)}") from error
    threading.Thread(target=way.run, daemon=True).start()
    return mine


class TlsListener(tunnel.Listener):
    """Takes connections at a tcp:// address to the socket at *path*; *web*: of clients without a certificate."""

    def __init__(self, url: str, path: Path, *, web: bool = False) -> None:
        """Raises PystackError."""
        context = _web_context(certificates()) if web else _context(certificates(), server=True)
        host, port = _address(url)
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise PystackError(f"{'--web' if web else '--listen'} {url}: {error.strerror or error}") from error
        super().__init__(listening, context, path)
