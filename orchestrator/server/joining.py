"""Machines that become nodes by themselves, by a token: who may, what they get, and which links are refused."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.contract.joining import JoinAnswer, JoinRequest, joined_address, token_text
from agent.contract.times import timestamp, timestamp_if_set
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.node import Node
from orchestrator.server import store_keys
from orchestrator.server.clock_skew import check_clock
from orchestrator.server.cluster import Cluster
from orchestrator.server.members import NodeConnection
from orchestrator.server.membership import Membership
from orchestrator.server.node_authority import NodeAuthority, UplinkServer, known_servers
from orchestrator.store.interface import Delete, Put, StoreError
from orchestrator.transport.node_listener import NodeListener, Peer

CERTIFICATE_DAYS = 90
"""How long a node's certificate holds; it asks for another when half of that is over."""
PAST_KEYS = 4
"""How many keys that a node gave up are known as such; the certificate of the last but one has ended mostly."""
OLD_DIALS_S = 10.0
"""How long after an exchange a connection by the old key may have been on its way."""
MAX_USES, MAX_HOURS = 10_000, 366 * 24.0
SHARE_S = 5.0
"""How often the leader looks for servers that are new."""
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
HOST_KEY = re.compile(r"[a-z0-9@.-]{1,40} [A-Za-z0-9+/]{16,1000}={0,2}")
log = logging.getLogger(__name__)


class NodeToken(WireStruct, frozen=True, kw_only=True):
    """What lets machines join. *digest* is SHA-256 of the secret, in hexadecimal digits; *uses* are those that are left;
    *labels* are of each node that joins with it, *nodes* the names of those that did. *expires* is in seconds since 1970."""

    name: str
    digest: str
    uses: int
    labels: tuple[tuple[str, str], ...] = ()
    created: str = ""
    expires: float = 0.0
    nodes: tuple[str, ...] = ()

    def problem(self) -> str:
        """Why it lets nobody in, "" if it does."""
        if time.time() > self.expires:
            return f"ended at {timestamp_if_set(self.expires)}"
        return "" if self.uses else f"was used, by {', '.join(self.nodes[-5:])}"


class NodeJoiner:
    """Takes machines into *cluster* that dial. *keys* is the folder of this host's keys."""

    def __init__(self, cluster: Cluster, membership: Membership, keys: Path) -> None:
        self.tokens: dict[str, NodeToken] = {}
        self.listener: NodeListener | None = None
        """What nodes dial, None if they cannot."""
        self._cluster, self._membership = cluster, membership
        self._store = cluster.store
        self._authority = NodeAuthority(cluster.store, keys, cluster.local)
        self._joining = asyncio.Lock()
        self._ordered: set[str] = set()
        """Nodes that were asked to exchange their certificate: what becomes of the old one was feared before."""
        self._sharing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the store, and answer those who dial; where nobody can, there is nothing to do. Raises StoreError."""
        if self.listener is None:
            return
        for entry in await self._store.scan(store_keys.NODE_TOKENS):
            token = msgspec.json.decode(entry.value, type=NodeToken)
            self.tokens[token.name] = token
        await self._authority.load()
        self.listener.enrol, self.listener.admit = self.enrol, self.admit
        for link in self.listener.links:  # of the time when another server led
            if await self.admit(Peer(link.source, "", link.node, link.key), dials=False):
                self.listener.links.drop(link.node)
        if self._authority.root:
            await self.listener.serve(self._authority.root)
        self._sharing = asyncio.create_task(self._share_with_servers(), name="servers that nodes dial")

    async def close(self) -> None:
        """Answer nobody; links stay."""
        if self._sharing:
            self._sharing.cancel()
            await asyncio.gather(self._sharing, return_exceptions=True)
        if self.listener:
            self.listener.enrol = self.listener.admit = None

    # --- servers -----------------------------------------------------------------------------------------------------

    async def _share_with_servers(self) -> None:
        """Have each server know the authority, and each node the servers: a new leader is dialled before it leads."""
        while True:
            try:
                await self._share()
            except (PystackError, StoreError) as error:
                log.warning("the servers that nodes dial: %s", error)
            await asyncio.sleep(SHARE_S)

    async def _share(self) -> None:
        listener, name = self.listener, self._cluster.local
        if listener is None or not self._authority.root:
            return
        await self._authority.share()
        wanted = msgspec.json.encode(UplinkServer(address=listener.address(self._own_host())))
        known = await self._store.get(store_keys.of_uplink(name))
        if known is None or known.value != wanted:
            await self._store.transact((), [Put(store_keys.of_uplink(name), wanted)])
        before, listener.servers = listener.servers, await known_servers(self._store)
        if before != listener.servers:
            await asyncio.gather(*(self._tell(m) for m in self._cluster.members.values()), return_exceptions=True)

    async def _tell(self, member: NodeConnection) -> None:
        if self.listener and member.ready and member.node.transport == "uplink":
            await member.client.call("PUT", "/pystack/uplink/servers", data=msgspec.json.encode(self.listener.servers))

    def _own_host(self) -> str:
        """This host's address for nodes, as far as it is known."""
        own = self._cluster.members.get(self._cluster.local)
        advertised = self._cluster.advertised_host
        if advertised or own is None:
            return advertised
        found = [a for a in own.node.info.addresses if ":" not in a and not a.startswith("127.")]
        return own.node.underlay or (found[0] if len(found) == 1 else "")

    # --- tokens ------------------------------------------------------------------------------------------------------

    async def create_token(self, uses: int, hours: float, labels: Mapping[str, str], name: str = "") -> tuple[NodeToken, str]:
        """A new token, and what a machine joins with, TOKEN@SERVER, which is kept nowhere. Raises RefusedError (400, 409)."""
        if self.listener is None:
            raise RefusedError("this server does not listen for nodes: start it with --listen-nodes tcp://ADDRESS", 409)
        name = name or f"join-{secrets.token_hex(3)}"
        if not NAME.fullmatch(name) or not 0 < uses <= MAX_USES or not 0 < hours <= MAX_HOURS:
            raise RefusedError(
                f"a token has 1 to {MAX_USES} uses, holds at most {MAX_HOURS:g} hours, and has a name of a-z, 0-9, . and -", 400
            )
        if name in self.tokens:
            raise RefusedError(f"there is a token {name} already: remove it first, or give this one another name", 409)
        from orchestrator import authority

        root = await self._authority.ensure()
        await self.listener.serve(root)
        await self._share()
        secret = secrets.token_urlsafe(16)
        token = NodeToken(
            name=name,
            digest=_digest(secret),
            uses=uses,
            labels=tuple(sorted(labels.items())),
            created=timestamp(digits="seconds"),
            expires=time.time() + hours * 3600.0,
        )
        gone = [t for t in self.tokens.values() if t.expires < time.time() - 7 * 86_400][:60]
        await self._store.transact(
            (),
            [
                Put(store_keys.of_node_token(name), msgspec.json.encode(token)),
                *(Delete(store_keys.of_node_token(t.name)) for t in gone),
            ],
        )
        self.tokens[name] = token
        for one in gone:
            del self.tokens[one.name]
        servers = ",".join(self.listener.servers) or joined_address("SERVER", self.listener.port)
        return token, f"{token_text(authority.certificate_key_hash(root), secret)}@{servers}"

    async def remove_token(self, name: str) -> None:
        """Raises RefusedError (404), StoreError."""
        if name not in self.tokens:
            raise RefusedError(f"there is no token {name[:80]}; there is: {', '.join(sorted(self.tokens)) or 'none'}", 404)
        await self._store.transact((), [Delete(store_keys.of_node_token(name))])
        self.tokens.pop(name, None)

    # --- those who dial ----------------------------------------------------------------------------------------------

    async def enrol(self, request: JoinRequest, peer: Peer) -> JoinAnswer:
        """A certificate for a machine with a token, which is a node from then on; or another one for a node.

        Raises PystackError."""
        async with self._joining:
            if not request.secret:
                return await self._renew(request, peer)
            token = next((t for t in self.tokens.values() if secrets.compare_digest(t.digest, _digest(request.secret))), None)
            if token is None:
                raise RefusedError("this cluster does not know that token: it was removed, or is of another", 403)
            return await self._take_in(request, peer, token)

    async def _take_in(self, request: JoinRequest, peer: Peer, token: NodeToken) -> JoinAnswer:
        name = request.name.lower()
        ident = os.urandom(8).hex()
        certificate, key = self._certify(request, ident)
        # it asked before, and was killed before it had the answer
        again = next((m.node for m in self._cluster.members.values() if m.node.uplink_key == key), None)
        if again and again.name in token.nodes:
            return JoinAnswer(name=again.name, certificate=self._certify(request, again.id)[0])
        if problem := token.problem():
            raise RefusedError(f"token {token.name} {problem}: `pystack node token create` makes another", 403)
        if not NAME.fullmatch(name):
            raise RefusedError(
                f"{request.name[:80]!r} is not a name of a node: choose one with --name (a-z, 0-9, . and -)", 400
            )
        _check_own_words(request)
        check_clock(f"{name} ({peer.source})", request.clock - time.time())
        node = Node(
            name=name,
            id=ident,
            transport="uplink",
            labels=token.labels,
            underlay=request.underlay,
            host_key=request.host_key,
            uplink_key=key,
        )
        used = msgspec.structs.replace(token, uses=token.uses - 1, nodes=(*token.nodes, name))
        await self._membership.take_in(node, peer.own, Put(store_keys.of_node_token(token.name), msgspec.json.encode(used)))
        self.tokens[token.name] = used
        log.warning("node %s joined from %s with token %s", name, peer.source, token.name)
        return JoinAnswer(name=name, certificate=certificate)

    async def _renew(self, request: JoinRequest, peer: Peer) -> JoinAnswer:
        if problem := await self.admit(peer):
            raise RefusedError(problem, 403)
        member = next((m for m in self._cluster.members.values() if m.node.id == peer.node), None)
        if member is None:
            raise RefusedError("the node was removed", 403)
        certificate, key = self._certify(request, member.node.id)
        if key == member.node.uplink_key:
            raise RefusedError("a new certificate has a new key", 400)
        member.node = msgspec.structs.replace(member.node, next_uplink_key=key)
        await self._cluster.save(member.node)
        return JoinAnswer(name=member.node.name, certificate=certificate)

    def _certify(self, request: JoinRequest, ident: str) -> tuple[str, str]:
        from orchestrator import authority

        now = datetime.datetime.now(datetime.UTC)
        try:
            return authority.certify_node(self._authority.root, request.request, ident, now, CERTIFICATE_DAYS)
        except ValueError as error:
            raise RefusedError(f"the request for a certificate is malformed: {error}", 400) from None

    async def admit(self, peer: Peer, *, dials: bool = True) -> str:
        """Why the node with this certificate may not be linked, "" if it may. The first link by its next key ends the one
        before: a copy of that is worth nothing from then on. Where a node *dials* by a key that it has given up, there are two
        that have its certificate, and neither is let in. Raises StoreError."""
        member = next((m for m in self._cluster.members.values() if m.node.id == peer.node), None)
        if member is None:
            return "" if self._membership.is_leaving(peer.node) else "it is not a node of this cluster: it was removed"
        if peer.key == member.node.next_uplink_key:
            await self._exchange(member, peer.key)
        late = time.time() - member.node.exchanged > OLD_DIALS_S
        if dials and late and peer.key in member.node.past_uplink_keys and not member.node.copied:
            await self._lock_out(member, peer)
        if member.node.copied:
            return f"node {member.node.name} is locked out: {member.node.copied}"
        if peer.key != member.node.uplink_key:
            return f"the certificate of node {member.node.name} was exchanged for another one"
        return ""

    async def _exchange(self, member: NodeConnection, key: str) -> None:
        """The node came with its next *key*: the one before is past."""
        node, ordered = member.node, member.node.name in self._ordered
        self._ordered.discard(node.name)
        self._cluster.links.drop(node.id)
        past = () if ordered else (node.uplink_key, *node.past_uplink_keys)[:PAST_KEYS]
        member.node = msgspec.structs.replace(
            node, uplink_key=key, next_uplink_key="", past_uplink_keys=past, exchanged=time.time()
        )
        await self._cluster.save(member.node)

    async def _lock_out(self, member: NodeConnection, peer: Peer) -> None:
        """Let in neither who holds the node's place nor who comes with its old certificate: one of them has a copy."""
        link = self._cluster.links.get(member.node.id)
        beside = f"; its place was held from {link.source}" if link else ""
        why = (
            f"at {timestamp(digits='seconds')} its old certificate was used from {peer.source}, after it had been exchanged "
            f"for another one{beside}: somebody has a copy"
        )
        self._cluster.links.drop(member.node.id)
        member.node = msgspec.structs.replace(member.node, uplink_key="", next_uplink_key="", copied=why)
        await self._cluster.save(member.node)
        log.warning("node %s is locked out: %s", member.node.name, why)

    async def rotate(self, name: str) -> None:
        """Have a node exchange its key and certificate now. Raises RefusedError, UnreachableError."""
        member = self._cluster.get(name)
        if member.node.transport != "uplink":
            raise RefusedError(f"{member.node.name} did not join by a token: it has no certificate", 409)
        if member.node.copied:
            raise RefusedError(f"node {member.node.name} is locked out: {member.node.copied}", 409)
        self._ordered.add(member.node.name)
        try:
            await member.client.call("POST", "/pystack/uplink/rotate")
        except PystackError:
            self._ordered.discard(member.node.name)
            raise


def _check_own_words(request: JoinRequest) -> None:
    """What a machine says of itself gets into the manifests of others. Raises RefusedError (400)."""
    try:
        ipaddress.ip_address(request.underlay)
    except ValueError:
        raise RefusedError(f"--underlay {request.underlay[:80]!r}: an IP address is wanted", 400) from None
    if request.host_key and not HOST_KEY.fullmatch(request.host_key):
        raise RefusedError("the key of its SSH server is not one in OpenSSH's form", 400)


def _digest(secret: str) -> str:
    # 128 random bits need no slow hash: nobody can try them all
    return hashlib.sha256(secret.encode()).hexdigest()
