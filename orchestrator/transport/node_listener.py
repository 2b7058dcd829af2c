"""The port that nodes dial. A machine with a token becomes a node there, and a node with a certificate keeps its link.

Nothing else is answered: over a link the server asks, and the node answers (`agent/contract/joining.py`).
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agent.contract.joining import (
    JOIN,
    LINK,
    LONGEST,
    SERVER_NAME,
    WITHIN_S,
    Greeting,
    JoinAnswer,
    JoinRequest,
    LinkAnswer,
    LinkHello,
    MalformedJoinError,
    joined_address,
    load_certificate,
    receive_line,
    send_line,
    split_address,
)
from agent.contract.printable import shown
from orchestrator.errors import PystackError
from orchestrator.transport.uplink import Link, Links

RENEW_S = 86_400.0
"""How often the server makes itself a new certificate."""
AT_ONCE = 200
"""Machines that may be at their first lines at the same time."""
NOT_LEADING = "this server does not lead, or does not yet: ask the one that does"
log = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """Who dialled: from the address *source* to *own*, with the certificate of *node* and the hash of its key; "" for none."""

    source: str
    own: str
    node: str = ""
    key: str = ""


class NodeListener:
    """Listens at *url*, tcp://ADDRESS[:PORT]. *server* is this server's name, *folder* is for what must lie in a file for a
    moment. *links* are what nodes keep here."""

    def __init__(self, url: str, server: str, folder: Path) -> None:
        """Raises PystackError."""
        self.links = Links()
        self.servers: tuple[str, ...] = ()
        """The addresses of all servers, as nodes dial them."""
        self.enrol: Callable[[JoinRequest, Peer], Awaitable[JoinAnswer]] | None = None
        """Answers a request to join, of a server that leads. Raises PystackError."""
        self.admit: Callable[[Peer], Awaitable[str]] | None = None
        """Why a node may not be linked, "" if it may; of a server that leads. Another cannot know."""
        self._server, self._folder = server, folder
        self._root = b""
        self._context: ssl.SSLContext | None = None
        self._accepting: asyncio.Server | None = None
        self._renewing: asyncio.TimerHandle | None = None
        self._begun = 0
        scheme, _, rest = url.rpartition("://")
        try:
            if scheme != "tcp":
                raise MalformedJoinError("write tcp://ADDRESS or tcp://ADDRESS:PORT")
            self.host, self.port = split_address(rest)
            self._socket = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((self.host, self.port))  # refuses connections until there is an authority
        except MalformedJoinError as error:
            raise PystackError(f"--listen-nodes {url}: {error}") from None
        except OSError as error:
            raise PystackError(f"--listen-nodes {url}: {error.strerror or error}") from error

    def address(self, host: str) -> str:
        """Where nodes dial this server: where it listens, or at *host* if that is everywhere; "" if neither is known."""
        known = host if self.host in ("0.0.0.0", "::") else self.host
        return joined_address(known, self.port) if known else ""

    async def serve(self, root: bytes) -> None:
        """Begin to answer, as what the authority *root* (certificate and key in PEM) certifies; or go on with another."""
        from orchestrator import authority

        if root == self._root:
            return
        self._root, self._authority = root, authority.root_certificate(root)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL  # a machine that joins has none yet
        context.load_verify_locations(cadata=self._authority)
        context.set_alpn_protocols([LINK, JOIN])
        self._context = context
        self._renew()
        if self._accepting:
            self._accepting.close()
        self._accepting = await asyncio.start_server(
            self._accept, sock=self._socket.dup(), ssl=context, limit=LONGEST, ssl_handshake_timeout=WITHIN_S, backlog=1024
        )

    def _renew(self) -> None:
        """Load a new certificate of this server's own."""
        from orchestrator import authority

        assert self._context is not None
        made = authority.issue(self._root, SERVER_NAME, datetime.datetime.now(datetime.UTC))
        load_certificate(self._context, made, self._folder)
        if self._renewing:
            self._renewing.cancel()
        self._renewing = asyncio.get_running_loop().call_later(RENEW_S, self._renew)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = "?"
        self._begun += 1
        begun = True
        try:
            peer = _peer(writer)
            source = peer.source
            if self._begun > AT_ONCE:
                raise ConnectionResetError("too many others join at the moment")
            protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            async with asyncio.timeout(WITHIN_S):
                if protocol == LINK:
                    link = await self._link(peer, reader, writer)
                else:
                    link = None
                    await self._join(peer, reader, writer)
            self._begun, begun = self._begun - 1, False
            if link:
                await self._keep(link)
        except (OSError, TimeoutError, ValueError) as error:
            log.info("a connection from %s: %s", source, shown(str(error) or type(error).__name__, 200))
        finally:
            self._begun -= begun
            writer.close()

    async def _join(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send_line(writer, Greeting(server=self._server, authority=self._authority))
        try:
            request = await receive_line(reader, JoinRequest)
        except ConnectionResetError:
            return  # it wanted to know the authority
        try:
            if self.enrol is None:
                answer = JoinAnswer(error=NOT_LEADING, elsewhere=True)
            else:
                answer = await self.enrol(request, peer)
        except PystackError as error:
            log.warning("%s (%s) does not join: %s", shown(request.name, 64) or peer.node, peer.source, error)
            answer = JoinAnswer(error=str(error))
        await send_line(writer, msgspec.structs.replace(answer, servers=self.servers))

    async def _link(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Link | None:
        """The link of *peer*, None if it may have none."""
        from agent.contract.multiplex import Multiplexer

        await send_line(writer, Greeting(server=self._server, authority=self._authority))
        hello = await receive_line(reader, LinkHello)
        why = "a node shows its certificate" if not peer.node else await self.admit(peer) if self.admit else ""
        await send_line(writer, LinkAnswer(error=why, servers=self.servers))
        if why:
            log.warning("a node at %s with a certificate of %s is refused: %s", peer.source, peer.node or "nobody", why)
            return None
        return Link(peer.node, peer.key, peer.source, (peer.own, _plain(hello.address)), Multiplexer(reader, writer))

    async def _keep(self, link: Link) -> None:
        self.links.add(link)
        try:
            why = await link.carrier.run()
            log.info("the link of node %s (%s) ended: %s", link.node, link.source, why)
        finally:
            self.links.discard(link)

    async def close(self) -> None:
        """End all links, and listen no more."""
        if self._renewing:
            self._renewing.cancel()
        if self._accepting:
            self._accepting.close()
        for link in self.links:
            self.links.drop(link.node)
        self._socket.close()


def _plain(address: str) -> str:
    """*address*, if it is one: what a node says gets into the manifests of others."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""


def _peer(writer: asyncio.StreamWriter) -> Peer:
    from orchestrator import authority

    source, own = writer.get_extra_info("peername")[0], writer.get_extra_info("sockname")[0]
    tls = writer.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True)
    if not certificate:
        return Peer(source, own)
    subject = tls.getpeercert().get("subject", ())
    names = [value for part in subject for kind, value in part if kind == "commonName"]
    return Peer(source, own, names[0] if len(names) == 1 else "", authority.certificate_key_hash(certificate))
