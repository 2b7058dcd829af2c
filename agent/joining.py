"""This machine becomes a node of a cluster, by a token.

The key is made and kept before anything is asked: a machine which is killed before it had its answer asks the same again, and
is the same node.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import platform
import socket
import ssl
import time
from pathlib import Path

import msgspec

from agent import files
from agent.contract.backoff import Backoff
from agent.contract.joining import (
    JOIN,
    WITHIN_S,
    Invitation,
    JoinRequest,
    MalformedJoinError,
    key_hash,
    split_address,
)
from agent.contract.printable import shown
from agent.contract.wire import WireStruct
from agent.errors import AgentError, BadRequestError, ConflictError
from agent.paths import Paths
from agent.uplink import Credentials, Uplink, UplinkError, ask, certificate_request, dial, new_key, reason, servers_context

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key.pub")
VARIABLE = "PYSTACK_JOIN"
"""What an agent joins by when it starts: TOKEN@SERVER, or the path of a file with that."""
log = logging.getLogger(__name__)


class JoinOptions(WireStruct, frozen=True, kw_only=True):
    """*join* is TOKEN@SERVER. *name* and *underlay* are "" for the machine's own."""

    join: str
    name: str = ""
    underlay: str = ""


class _Begun(WireStruct, frozen=True, kw_only=True):
    """What joining.json has: the key that was made for a token, and that token's hash."""

    token: str
    key: str


async def join(options: JoinOptions, paths: Paths, uplink: Uplink, member: str) -> str:
    """Make this machine a node, and begin to dial; returns its name. *member* is what it is of a cluster already, or "".

    Raises BadRequestError, ConflictError with each server's reason."""
    if uplink.name or member:
        raise ConflictError(
            f"this machine is {f'node {uplink.name}' if uplink.name else 'a node'} of a cluster already: `pystack node rm` "
            "there lets it go"
        )
    try:
        invitation = Invitation.parse(options.join)
    except MalformedJoinError as error:
        raise BadRequestError(str(error)) from None
    key = _key_for(paths, invitation)
    problems, addresses = [], list(invitation.servers)
    for address in addresses:  # it grows: a server that does not lead names others
        try:
            known = await _ask_server(address, invitation, options, key)
        except _ElsewhereError as error:
            addresses += [one for one in error.servers if one not in addresses]
            problems.append(f"{address}: {error}")
        except UplinkError as error:
            problems.append(f"{address}: {shown(str(error), 500)}")
        except (OSError, TimeoutError, ValueError) as error:
            problems.append(f"{address}: {reason(error)}")
        else:
            uplink.take(known)
            (paths.root / "joining.json").unlink(missing_ok=True)
            return known.name
    raise ConflictError(f"this machine does not join: {'; '.join(problems)}")


class _ElsewhereError(Exception):
    """Another of *servers* may say yes."""

    def __init__(self, message: str, servers: tuple[str, ...]) -> None:
        super().__init__(message)
        self.servers = servers


def _key_for(paths: Paths, invitation: Invitation) -> str:
    path, token = paths.root / "joining.json", hashlib.sha256(invitation.secret.encode()).hexdigest()
    with contextlib.suppress(FileNotFoundError, ValueError):
        begun = msgspec.json.decode(path.read_bytes(), type=_Begun)
        if begun.token == token:
            return begun.key
    key = new_key()
    files.write_atomically(path, msgspec.json.encode(_Begun(token=token, key=key)), 0o600, sync=True)
    return key


async def _ask_server(address: str, invitation: Invitation, options: JoinOptions, key: str) -> Credentials:
    """Raises OSError, TimeoutError, ValueError, UplinkError, _ElsewhereError."""
    authority = await _authority_of(address, invitation)
    host, port = split_address(address)
    request = JoinRequest(
        request=certificate_request(key),
        secret=invitation.secret,
        name=options.name or platform.node().split(".")[0],
        underlay=options.underlay or await _own_address(host, port),
        clock=time.time(),
        host_key=_host_key(),
    )
    answer = await ask(address, servers_context(authority, JOIN), request)
    if answer.elsewhere:
        raise _ElsewhereError(answer.error, answer.servers)
    if not answer.certificate:
        raise UplinkError(answer.error)
    return Credentials(
        name=answer.name,
        key=key,
        certificate=answer.certificate,
        authority=authority,
        given=invitation.servers,
        servers=answer.servers,
    )


async def _authority_of(address: str, invitation: Invitation) -> str:
    """The authority of the server there, if it is the token's; nothing is sent meanwhile. Raises UplinkError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what it shows is compared with the token
    context.set_alpn_protocols([JOIN])
    async with asyncio.timeout(WITHIN_S * 2):
        _, writer, greeting = await dial(address, context)
        writer.transport.abort()
    try:
        public = x509.load_pem_x509_certificate(greeting.authority.encode()).public_key()
    except ValueError:
        raise UplinkError("it does not show an authority") from None
    found = key_hash(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    if found != invitation.authority:
        raise UplinkError(
            f"its authority is {found}, and the token's is {invitation.authority}: the token is of another cluster, or "
            "somebody stands between; nothing was sent"
        )
    return greeting.authority


async def _own_address(host: str, port: int) -> str:
    """The address from which this machine reaches *host*. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, place = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(place)  # of a datagram socket: nothing is sent
        return str(probe.getsockname()[0])


def _host_key() -> str:
    """The public key of this machine's SSH server, "" if it has none: other nodes mount volumes by it."""
    try:
        return " ".join(HOST_KEY.read_text().split()[:2])
    except OSError:
        return ""


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def invitation_in(text: str) -> str:
    """*text*, or what the file of that name has. Raises OSError."""
    return (Path(text).read_text() if text.startswith("/") else text).strip()


async def join_at_start(paths: Paths, uplink: Uplink, member: str) -> None:
    """Join by PYSTACK_JOIN, however long that takes; by each token once, so that a node which was removed stays away."""
    asked = os.environ.get(VARIABLE, "").strip()
    if not asked or uplink.name or member:
        return
    used, pauses, logged = paths.root / "joined", Backoff(1.0, 30.0, jitter=0.5), ""
    while True:
        try:
            text = invitation_in(asked)
            digest = hashlib.sha256(text.encode()).hexdigest()
            if _content(used) == digest:
                return
            name = await join(JoinOptions(join=text), paths, uplink, member)
            files.write_atomically(used, digest.encode(), 0o600, sync=True)
            log.warning("this machine is the node %s now", name)
            return
        except FileNotFoundError:
            return  # a machine that nobody asked to join: the unit names a file that need not be there
        except (AgentError, OSError) as error:
            if str(error) != logged:
                log.warning("%s: %s", VARIABLE, error)
            logged = str(error)
        await asyncio.sleep(next(pauses))
