"""The links of a node that joined by itself: one to each server, which asks over it what it asks another node's socket.

    <root>/uplink.json   key and certificate, the authority of the servers, and where they are; changed in one step

The node dials, so that it needs no open port and may be behind NAT. Its certificate opens that link and nothing else; half-way
through its time it is exchanged, with its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec

from agent import files
from agent.contract.backoff import Backoff
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
    load_certificate,
    receive_line,
    send_line,
    split_address,
)
from agent.contract.printable import shown
from agent.contract.times import timestamp
from agent.contract.wire import WireStruct
from agent.errors import AgentError, ConflictError

ROTATE_CHECK_S = 3600.0
REFUSED_S = 15.0
"""How long a node waits that was refused: a server that begins to lead may know better."""
SAME_SERVER_S = 2.0
log = logging.getLogger(__name__)


class UplinkError(AgentError):
    """The link is refused, or the server is not the one that it should be."""


class _LinkedAlreadyError(Exception):
    """The server is linked, by another of its addresses."""


@contextlib.asynccontextmanager
async def _aborted_if_it_fails(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise


class Credentials(WireStruct, frozen=True, kw_only=True):
    """What uplink.json has: the node's *name*, *key* and *certificate*, the servers' *authority*, all in PEM. *given* are the
    servers that the node was joined to, *servers* those that it learned of since."""

    name: str
    key: str
    certificate: str
    authority: str
    given: tuple[str, ...]
    servers: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses to dial."""
        return tuple(dict.fromkeys((*self.given, *self.servers)))


def new_key() -> str:
    """A new private key, in PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certificate_request(key: str) -> str:
    """The request for a certificate of *key*. Source: RFC 2986 (PKCS #10)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    private = load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey), "made by new_key"
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(private, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def times_of(certificate: str) -> tuple[float, float]:
    """Begin and end of a certificate, in seconds since 1970."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.encode())
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def is_due(certificate: str, now: float) -> bool:
    """Whether half of its time is over."""
    begin, end = times_of(certificate)
    return now > (begin + end) / 2


def servers_context(authority: str, protocol: str) -> ssl.SSLContext:
    """TLS to a server that *authority* certifies, for *protocol*."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(cadata=authority)
    made.set_alpn_protocols([protocol])
    return made


async def dial(address: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Greeting]:
    """A connection to the server at *address*, and its greeting. Raises OSError, TimeoutError, ValueError, UplinkError."""
    host, port = split_address(address)
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=SERVER_NAME, limit=LONGEST, ssl_handshake_timeout=WITHIN_S
        )
    except ssl.SSLCertVerificationError as error:
        raise UplinkError(f"the server at {address}: {_certificate_problem(error)}") from None
    async with _aborted_if_it_fails(writer):
        return reader, writer, await receive_line(reader, Greeting)


def _certificate_problem(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        return (
            f"its certificate is not valid at this machine's time, {timestamp(digits='seconds')} ({error.verify_message}): set "
            "the clock (chrony, systemd-timesyncd)"
        )
    return f"it is none of the cluster's: its certificate is not by the cluster's authority ({error.verify_message})"


def reason(error: Exception) -> str:
    """Why a server was not reached, or not understood, in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words have no more than the address
    return shown(str(error), 200) or type(error).__name__


async def ask(address: str, context: ssl.SSLContext, request: JoinRequest) -> JoinAnswer:
    """The server's answer to *request*. Raises as `dial`."""
    async with asyncio.timeout(WITHIN_S * 2):
        reader, writer, _ = await dial(address, context)
        try:
            await send_line(writer, request)
            return await receive_line(reader, JoinAnswer)
        finally:
            writer.transport.abort()


def _check_times(known: Credentials) -> None:
    """Raises UplinkError where the node's certificate does not hold by this machine's clock."""
    begin, end = times_of(known.certificate)
    if not begin < time.time() < end:
        raise UplinkError(
            f"the certificate of this node holds from {timestamp(begin, 'seconds')} to {timestamp(end, 'seconds')}, and this "
            f"machine's time is {timestamp(digits='seconds')}: set the clock, or join again with a new token"
        )


class Uplink:
    """Keeps the links of this node, if it joined by itself. *root* and *run* are the agent's folders, *socket* is what servers
    are let to."""

    def __init__(self, root: Path, run: Path, socket: Path) -> None:
        self._file, self._run, self._socket = root / "uplink.json", run, socket
        self._known: Credentials | None = None
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._linked: dict[str, str] = {}
        """The address by which each server is linked, by its name."""
        self._rotating: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        with contextlib.suppress(FileNotFoundError):
            self._known = msgspec.json.decode(self._file.read_bytes(), type=Credentials)

    @property
    def name(self) -> str:
        """The node's name, "" if it did not join."""
        return self._known.name if self._known else ""

    @property
    def linked(self) -> bool:
        """Whether a server is linked now."""
        return bool(self._linked)

    def start(self) -> None:
        """Begin to dial, if this node joined."""
        if self._known is None:
            return
        for address in self._known.addresses:
            if address not in self._dialling or self._dialling[address].done():  # done: removed, and joined again
                self._dialling[address] = asyncio.create_task(self._keep_linked(address), name=f"link to {address}")
        if self._rotating is None:
            self._rotating = asyncio.create_task(self._rotate_in_time(), name="certificate of the links")

    def _keep(self, known: Credentials) -> None:
        files.write_atomically(self._file, msgspec.json.encode(known), 0o600, sync=True)
        self._known = known

    def take(self, known: Credentials) -> None:
        """Keep *known*, and begin to dial. Raises OSError."""
        self._keep(known)
        self.start()

    def forget(self) -> None:
        """This node was removed: no link is made any more. Those that are there end with their servers' will."""
        self._file.unlink(missing_ok=True)
        self._known = None

    async def stop(self) -> None:
        """End the links; what they need stays."""
        tasks = [*self._dialling.values(), *(t for t in (self._rotating, self._restarting) if t)]
        self._dialling, self._rotating, self._restarting = {}, None, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, servers: Iterable[str]) -> None:
        """Dial *servers* too, and no others that were learned before. Raises MalformedJoinError, OSError."""
        learned = tuple(servers)
        for address in learned:
            split_address(address)
        if self._known is None or not learned or learned == self._known.servers:
            return
        self._keep(msgspec.structs.replace(self._known, servers=learned))
        for address in self._dialling.keys() - set(self._known.addresses):
            self._dialling.pop(address).cancel()
        self.start()

    # --- links -------------------------------------------------------------------------------------------------------

    async def _keep_linked(self, address: str) -> None:
        pauses = Backoff(0.2, 10.0, jitter=0.5)
        logged = ""
        while self._known:
            why, pause_s = "", 0.0
            try:
                why = await self._link(address, self._known, pauses)
            except _LinkedAlreadyError:
                pause_s = SAME_SERVER_S
            except UplinkError as error:
                why, pause_s = str(error), REFUSED_S
            except (OSError, TimeoutError, ValueError) as error:
                why = f"the server at {address}: {reason(error)}"
            if why and why != logged:
                log.warning("%s", why)
            logged = why
            await asyncio.sleep(pause_s or next(pauses))

    async def _link(self, address: str, known: Credentials, pauses: Backoff) -> str:
        """Keep a link to the server at *address* until it ends; returns why it did. Raises as `dial`."""
        from agent.contract.multiplex import Channel, Multiplexer, relay

        async def serve(channel: Channel) -> None:
            near, nearer = await asyncio.open_unix_connection(str(self._socket), limit=1 << 18)
            await relay(link, channel, near, nearer)

        async with asyncio.timeout(WITHIN_S * 2):
            try:
                reader, writer, greeting = await dial(address, self._context(known, LINK))
            except (ssl.SSLError, ConnectionResetError):  # in TLS 1.3 a refused certificate shows with the first read
                _check_times(known)
                raise
            async with _aborted_if_it_fails(writer):
                if greeting.server in self._linked:  # by another of its addresses
                    raise _LinkedAlreadyError
                await send_line(writer, LinkHello(address=writer.get_extra_info("sockname")[0]))
                answer = await receive_line(reader, LinkAnswer)
                if answer.error:
                    raise UplinkError(f"the server at {address} does not link this node: {shown(answer.error, 500)}")
        pauses.reset()
        self._linked[greeting.server] = address
        log.warning("linked to the server %s at %s", greeting.server, address)
        link = Multiplexer(reader, writer, serve)
        try:
            self.learn(answer.servers)
            return f"the link to {address} ended: {await link.run()}"
        finally:
            link.abort()
            self._linked.pop(greeting.server, None)

    def _context(self, known: Credentials, protocol: str) -> ssl.SSLContext:
        made = servers_context(known.authority, protocol)
        load_certificate(made, (known.certificate + known.key).encode(), self._run)
        return made

    # --- certificates ------------------------------------------------------------------------------------------------

    async def _rotate_in_time(self) -> None:
        while True:
            if self._known and is_due(self._known.certificate, time.time()):
                try:
                    await self.rotate()
                except AgentError as error:
                    log.warning("the certificate of this node is not renewed yet: %s", error)
            await asyncio.sleep(ROTATE_CHECK_S)

    async def rotate(self) -> None:
        """Exchange key and certificate, and make all links again with them. Raises ConflictError with each server's reason.

        What is kept is changed when the new certificate is there, and the server takes the old one until the new one came: this
        process can end anywhere."""
        known = self._known
        if known is None:
            raise ConflictError("this node did not join by a token: it has no certificate")
        key, problems = new_key(), []
        for address in dict.fromkeys((*self._linked.values(), *known.addresses)):
            try:
                answer = await ask(address, self._context(known, JOIN), JoinRequest(request=certificate_request(key)))
            except (OSError, TimeoutError, ValueError, UplinkError) as error:
                problems.append(f"{address}: {reason(error)}")
                continue
            if answer.certificate and self._known is known:
                self._keep(msgspec.structs.replace(known, key=key, certificate=answer.certificate))
                log.warning("this node has a new certificate")
                self._restarting = asyncio.create_task(self._link_again(), name="links with a new certificate")
                return
            problems.append(f"{address}: {shown(answer.error, 500)}")
        raise ConflictError(f"no server gives a new certificate: {'; '.join(problems)}")

    async def _link_again(self) -> None:
        """End the links, in a moment: who asked for this is answered over one of them."""
        await asyncio.sleep(0.2)
        tasks = list(self._dialling.values())
        self._dialling = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.start()
