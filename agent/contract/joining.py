"""Machines that join by themselves: the token, and what they and a server say before a connection is theirs.

A machine dials a server's port for nodes, TLS 1.3 alone. By ALPN (RFC 7301) it asks for one of two things; both are JSON, one
document a line, and the server begins with a Greeting:

    JOIN   JoinRequest, JoinAnswer: a certificate for a token, or a new one for the certificate that the machine shows
    LINK   LinkHello, LinkAnswer, and then HTTP/2 (`multiplex.py`), in which the server asks and the node answers

The server is known by the cluster's authority alone, whose hash a token carries; by which address it is reached does not count.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.contract.atomic import write_atomically
from agent.contract.wire import WireStruct

PORT = 2377
JOIN, LINK = "pystack-join/1", "pystack-node/1"
SERVER_NAME = "server.nodes.pystack.internal"
"""The name in certificates of servers. `.internal` is for private use (ICANN, 2024)."""
WITHIN_S = 15.0
"""How long either side may take for its part before a link is there."""
LONGEST = 64 << 10
"""Bytes of a line."""
MARK = "pystack_join_"
"""The beginning of a token, by which one that is found is recognized."""
_TOKEN = re.compile(MARK + r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{22})")
_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
T = TypeVar("T", bound=msgspec.Struct)


class MalformedJoinError(ValueError):
    """It is not TOKEN@SERVER."""


class Greeting(WireStruct, frozen=True, kw_only=True):
    """The first line of a server: its name, and the certificate of the authority, in PEM."""

    server: str
    authority: str


class JoinRequest(WireStruct, frozen=True, kw_only=True):
    """*secret* is the token's, "" of a node that shows its certificate and wants a new one. *request* is a PKCS #10 request in
    PEM, of which the key counts. *name* is what the node wants to be called, *underlay* the address at which other nodes reach
    it, *clock* its time in seconds since 1970, *host_key* that of its SSH server, "" if it has none."""

    request: str
    secret: str = ""
    name: str = ""
    underlay: str = ""
    clock: float = 0.0
    host_key: str = ""


class JoinAnswer(WireStruct, frozen=True, kw_only=True):
    """The *certificate* of the node that is called *name*, in PEM, and the addresses of the *servers*. Or else *error*; with
    *elsewhere* another server may say yes."""

    error: str = ""
    elsewhere: bool = False
    name: str = ""
    certificate: str = ""
    servers: tuple[str, ...] = ()


class LinkHello(WireStruct, frozen=True, kw_only=True):
    """*address* is the node's own end of the connection, as it sees it."""

    address: str = ""


class LinkAnswer(WireStruct, frozen=True, kw_only=True):
    """Whether the node may be linked (*error* is "" then), and the addresses of the *servers*."""

    error: str = ""
    servers: tuple[str, ...] = ()


class Invitation(msgspec.Struct, frozen=True):
    """TOKEN@SERVER[,SERVER…]: the hash of the authority, the secret, and where the servers are."""

    authority: str
    secret: str
    servers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Raises MalformedJoinError."""
        token, at, rest = text.strip().partition("@")
        found = _TOKEN.fullmatch(token)
        if found is None or not at or not rest:
            raise MalformedJoinError(
                "that is not TOKEN@SERVER[:PORT]: `pystack node token create` on the server prints one, whole"
            )
        return cls(found[1], found[2], tuple(dict.fromkeys(whole_address(one) for one in rest.split(","))))


def token_text(authority: str, secret: str) -> str:
    """The token with the *secret*, for the authority with the hash *authority*."""
    return f"{MARK}{authority}.{secret}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST[:PORT]; an IPv6 address stands in brackets. Raises MalformedJoinError."""
    found = _SERVER.fullmatch(text)
    if found is None or not 0 < int(found[3] or PORT) < 1 << 16:
        raise MalformedJoinError(f"{text[:100]!r} is not the address of a server: write HOST, HOST:PORT or [IPV6]:PORT")
    return found[1] or found[2], int(found[3] or PORT)


def whole_address(text: str) -> str:
    """*text* as HOST:PORT. Raises MalformedJoinError."""
    host, port = split_address(text)
    return joined_address(host, port)


def joined_address(host: str, port: int) -> str:
    """HOST:PORT, or [IPV6]:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def key_hash(public: bytes) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo in DER) in Base64url, 43 characters. Source: RFC 7469, section 2.4."""
    return base64.urlsafe_b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def load_certificate(context: ssl.SSLContext, pem: bytes, folder: Path) -> None:
    """Have *context* show the certificate of *pem*, which has its key too. It takes a file alone: there is one in *folder*, for
    a moment, that nobody else can read. Raises OSError, of which ssl.SSLError is one."""
    path = folder / f".certificate-{os.getpid()}.pem"
    write_atomically(path, pem, 0o600)
    try:
        context.load_cert_chain(path)
    finally:
        path.unlink()


async def send_line(writer: asyncio.StreamWriter, document: msgspec.Struct) -> None:
    """Write *document* as a line. Raises OSError."""
    writer.write(msgspec.json.encode(document) + b"\n")
    await writer.drain()


async def receive_line(reader: asyncio.StreamReader, kind: type[T]) -> T:
    """The next line as a *kind*. Raises ConnectionError where none comes, ValueError for anything else (msgspec's errors are
    such)."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("it closed the connection") from None
    except asyncio.LimitOverrunError:
        raise ValueError("its line is too long") from None
    return msgspec.json.decode(line, type=kind)
