"""The nodes of the cluster and the connections to them. The store has them under `nodes/<name>`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.network import Network
from agent.contract.status import TaskStatus
from agent.contract.task import STRICT_SILENCE_S, Task
from orchestrator.errors import RefusedError, UndeliveredError
from orchestrator.placement.node import Node
from orchestrator.server.advertised_node import advertised_node
from orchestrator.server.members import NodeConnection, key_of, published_info
from orchestrator.server.node_tunnel import make_tunnel
from orchestrator.server.path_mtu import probe_path_mtu
from orchestrator.store.interface import Put, Store, StoreError
from orchestrator.transport.manifest_publisher import EtcdManifestPublisher
from orchestrator.transport.uplink import Links

OnStatus = Callable[[str, TaskStatus], None]
LOCAL_TIMEOUT_S = 30.0
"""How long the agent of this host may take to answer when the server starts."""
log = logging.getLogger(__name__)


class Cluster:
    """*local* is the name of this host's node and *socket* its agent's; *run* is the folder of forwarded sockets. *manifest*
    makes a node's manifest, *on_status* takes what a node reports of a task. *advertise* is how other servers reach this host
    over SSH, "" if there are none."""

    def __init__(
        self,
        store: Store,
        local: str,
        socket: Path,
        run: Path,
        manifest: Callable[[str], Manifest],
        on_status: OnStatus,
        advertise: str = "",
    ) -> None:
        self.store = store
        self.local = local
        self.members: dict[str, NodeConnection] = {}
        self.unreadable: set[str] = set()
        """The names of nodes whose records in the store could not be read: nobody knows how they are reached."""
        self.on_liveness: Callable[[str], None] = lambda _: None
        """Called with a node's name when it began to answer, or fell silent."""
        self.last_word: Mapping[str, float] = {}
        """When the node whose server led before said something last, by the loop's clock in seconds."""
        self.on_info: Callable[[NodeConnection], None] = lambda _: None
        """Called with a node whose info was read."""
        self.followers: list[Callable[[], Awaitable[None]]] = []
        """Awaited with each delivery: what else must know who answers for a service. They raise nothing."""
        self.socket = socket
        self.run = run
        self.manifest = manifest
        self.links = Links()
        """Those of the nodes that dial this server."""
        self._on_status = on_status
        self._advertise = advertise
        self._begun = asyncio.get_running_loop().time()
        self._gone_since: dict[str, float] = {}
        self._spread: asyncio.Task[None] | None = None
        self._saved_info: dict[str, tuple[object, ...]] = {}

    async def start(self) -> None:
        """Connect the nodes of the store, this host among them, and wait for this host's own agent."""
        nodes = await self._stored()
        self.unreadable = {e.key.rpartition("/")[2] for e in await self.store.scan("damaged/nodes/")}
        self._saved_info = {n.name: published_info(n.info) for n in nodes}
        if self._advertise:
            nodes = await self._among_servers(nodes)
        elif not any(n.is_servers_own for n in nodes):
            own = Node(name=self.local, id=os.urandom(8).hex())
            await self.save(own)
            nodes.append(own)
        if not self._advertise:
            self.local = next(n.name for n in nodes if n.is_servers_own)
        for node in await self.with_roles(nodes):
            self.connect(node)
        async with asyncio.timeout(LOCAL_TIMEOUT_S):
            await self.members[self.local].synced.wait()

    async def _stored(self) -> list[Node]:
        return [msgspec.json.decode(e.value, type=Node) for e in await self.store.scan("nodes/")]

    async def recall(self) -> None:
        """Know the nodes of the store, without connecting any. Raises StoreError."""
        for node in await self.with_roles(await self._stored()):
            self.members[node.name] = self._connection(node)

    @property
    def advertised_host(self) -> str:
        """The address at which other servers know this host, "" if there are none."""
        from orchestrator.transport.ssh import SshTarget

        return SshTarget.parse(self._advertise).host if self._advertise else ""

    async def with_roles(self, nodes: Sequence[Node]) -> list[Node]:
        """*nodes*, with those marked that may lead: each server has a key under `servers/`."""
        servers = {e.key.removeprefix("servers/") for e in await self.store.scan("servers/")}
        return [msgspec.structs.replace(n, server=n.name in servers or n.name == self.local) for n in nodes]

    async def _among_servers(self, nodes: Sequence[Node]) -> list[Node]:
        """*nodes*, with this host as the other servers must know it. Raises StoreError."""
        known = next((n for n in nodes if n.name == self.local), Node(name=self.local, id=os.urandom(8).hex()))
        own = await advertised_node(known, self._advertise, self.run)
        if own not in nodes:
            await self.save(own)
        return [*(n for n in nodes if n.name != own.name), own]

    def connect(self, node: Node) -> NodeConnection:
        """Make *node* a member, and begin to connect it."""
        self.members[node.name] = member = self._connection(node)
        member.client.last_line_at = self.last_word.get(node.name, 0.0)
        member.on_connected = self._on_reconnected
        member.on_liveness = lambda: self.on_liveness(node.name)
        member.start()
        return member

    def _connection(self, node: Node) -> NodeConnection:
        tunnel = None if node.is_servers_own or node.name == self.local else make_tunnel(node, self.run, self.links)
        publisher = (
            EtcdManifestPublisher(self.store, node.name) if node.transport == "etcd" and node.name != self.local else None
        )
        return NodeConnection(
            node,
            tunnel.local if tunnel else self.socket,
            self.manifest,
            lambda status: self._on_status(node.name, status),
            tunnel,
            publisher,
        )

    async def _on_reconnected(self, member: NodeConnection) -> None:
        """Deliver to all nodes if something changed at *member* that their manifests contain."""
        self.on_info(member)
        for other in self.members.values():
            if other.tunnel and not other.ready and other is not member:
                other.tunnel.hurry()
        moved, changed = await self._follow_addresses(member), await self._persist_changed_info([member])
        if moved or changed:
            self._spread = asyncio.create_task(self.deliver())

    async def _persist_changed_info(self, members: Iterable[NodeConnection]) -> bool:
        """Save the info of *members* that other nodes' manifests contain (MTU, keys), so that a server that starts again can
        make those manifests before every node is connected. Returns whether any changed. Skips nodes that are not saved yet:
        they are not in the cluster yet."""
        news = [
            m for m in members if self._saved_info.get(m.node.name, published_info(m.node.info)) != published_info(m.node.info)
        ]
        for member in news:
            try:
                await self.save(member.node)
            except StoreError as error:  # a full disk: this server knows it for as long as it lives
                log.warning("what node %s is now is not kept: %s", member.node.name, error)
        return bool(news)

    async def _follow_addresses(self, member: NodeConnection) -> bool:
        """If *member* or this host lost its underlay address, use the address that SSH reaches instead. Returns whether one
        did."""
        mine, theirs = member.tunnel.ends if member.tunnel else ("", "")
        moved = []
        others = {m.node.underlay for m in self.members.values() if m is not member}
        if theirs and not member.node.info.has_underlay_address and theirs not in others | {member.node.underlay}:
            moved.append((member, theirs))
        own = self.members.get(self.local)
        if own and own.ready and own.node.underlay and not self._advertise and mine not in ("", own.node.underlay):
            await own.refresh_info()
            if not own.node.info.has_underlay_address:
                moved.append((own, mine))
        for one, address in moved:
            log.warning("node %s is at %s now, and not at %s", one.node.name, address, one.node.underlay)
            one.node = msgspec.structs.replace(one.node, underlay=address)
            await self.save(one.node)
            await one.refresh_info()
        return bool(moved)

    async def save(self, node: Node, *also: Put) -> None:
        """Write *node* to the store, and with it *also*. Raises StoreError."""
        await self.store.transact((), [Put(f"nodes/{node.name}", msgspec.json.encode(node)), *also])
        self._saved_info[node.name] = published_info(node.info)

    def drop(self, name: str) -> None:
        """Forget node *name*, which left the cluster; its strict tasks are fenced once its lease has ended."""
        self._saved_info.pop(name, None)
        self._gone_since[name] = asyncio.get_running_loop().time()
        self.members.pop(name, None)

    def get(self, name: str) -> NodeConnection:
        """The node with that name or ID; `local` is this host. Raises RefusedError (404)."""
        if name == "local":
            return self.members[self.local]
        for member in self.members.values():
            if name in (member.node.name, member.node.id):
                return member
        raise RefusedError(f"there is no node {name}; there is: {', '.join(sorted(self.members))}", 404)

    @property
    def ready(self) -> set[str]:
        """The names of the nodes that answer."""
        return {name for name, member in self.members.items() if member.ready}

    @property
    def obedient(self) -> set[str]:
        """The names of the nodes that answer, and took the last manifest that was offered to them."""
        return {name for name, member in self.members.items() if member.ready and not member.refusal}

    @property
    def away(self) -> set[str]:
        """The names of the nodes that are silent, or cannot take their manifests: nothing of them is waited for."""
        return {n for n, m in self.members.items() if m.refusal or not (m.ready or m.streaming)}

    def is_fenced(self, name: str) -> bool:
        """Whether node *name* surely runs none of its strict tasks any more: it has been silent for so long that its lease
        has ended. Of one that is gone from the cluster, since it is gone, or since this server leads."""
        member = self.members.get(name)
        since = self._gone_since.get(name, self._begun) if member is None else member.silent_since
        return since is not None and asyncio.get_running_loop().time() - since >= STRICT_SILENCE_S

    @property
    def silent(self) -> set[str]:
        """The names of the nodes that do not answer; none where that is more than half of all: then this server is taken to be
        the one that is cut off."""
        away = {name for name, member in self.members.items() if not member.ready and not member.unheard}
        return set() if len(away) * 2 > len(self.members) else away

    def unreachable_reason(self, name: str) -> str:
        """Why node *name* does not answer, "" if it does."""
        member = self.members.get(name)
        if member is None:
            return f"node {name} is gone from the cluster"
        return "" if member.ready else f"node {name} does not answer: {member.problem}"

    async def settled(self) -> None:
        """Wait until each node has reported since this server leads, or has had its time to."""
        left = max((m.grace_s for m in self.members.values()), default=0.0)
        waits = [asyncio.create_task(m.synced.wait()) for m in self.members.values() if m.unheard]
        try:
            await asyncio.wait(waits, timeout=left) if waits else None
        finally:
            for wait in waits:
                wait.cancel()

    async def refresh_info(self, *, problems_only: bool = False) -> None:
        """Ask every connected node for its info: links come and go without an event, and a node looks at its disk once a
        second. With *problems_only*, ask those that had a problem. Errors are ignored: the connection notices them itself."""
        asked = [m for m in self.members.values() if m.ready and (m.node.info.problem or not problems_only)]
        await asyncio.gather(*(m.refresh_info() for m in asked), return_exceptions=True)
        if await self._persist_changed_info(asked):
            self._spread = asyncio.create_task(self.deliver())

    async def ask_keys(self, nodes: Iterable[str], purpose: str) -> None:
        """Fetch the public keys of *nodes* for *purpose* ("seal" or "tunnel"); a node that has none makes one."""
        members = [self.members[n] for n in nodes if n in self.members]
        await asyncio.gather(*(m.ask_key(purpose) for m in members if m.ready and not key_of(m.node.info, purpose)))
        await self._persist_changed_info(members)

    async def ask_keys_for(self, tasks: Iterable[Task], networks: Iterable[Network]) -> None:
        """Fetch the public keys that the manifests for *tasks* and *networks* need: of nodes that get a secret, and of those
        that an encrypted network spans. `prepare_nodes` calls this before either is written."""
        await self.ask_keys({t.node for t in tasks if any(f.secret for f in t.container.files)}, "seal")
        await self.ask_keys({h.name for n in networks if n.encrypted for h in n.hosts}, "tunnel")

    async def deliver(self, nodes: Iterable[str] | None = None) -> None:
        """Send *nodes*, or all, the changes of their manifests, side by side. Nodes that do not answer get them later."""
        chosen = [self.members[n] for n in (self.members if nodes is None else nodes) if n in self.members]
        if len(chosen) == 1 and not self.followers:
            return await chosen[0].deliver()
        work = (*(m.deliver() for m in chosen), *(follow() for follow in self.followers))
        ends = await asyncio.gather(*work, return_exceptions=True)  # one that cannot keeps nobody back
        if failed := [end for end in ends if isinstance(end, BaseException)]:
            raise failed[0]

    async def deliver_where_possible(self) -> None:
        """As `deliver`, but a node that cannot take its manifest now (a full disk) gets it when it can: what ends, ends."""
        with contextlib.suppress(UndeliveredError):
            await self.deliver()

    async def measure_paths(self, members: Iterable[NodeConnection]) -> None:
        """Measure the paths of *members*, and save the MTU of those that carry less than their links do."""
        for member in members:
            measured = await probe_path_mtu(member, self.members.values())
            if measured is None:
                continue
            found, link = measured
            path_mtu = found if found < link else 0
            if path_mtu != member.node.path_mtu:
                log.warning("paths to node %s carry %d bytes, its link %d", member.node.name, found, link)
                member.node = msgspec.structs.replace(member.node, path_mtu=path_mtu)
                await self.save(member.node)

    def resign(self) -> None:
        """Another server leads: say nothing to nodes any more. What this one acknowledged while it ends would prolong leases by
        more than its successor waits for."""
        for member in self.members.values():
            member.fall_silent()

    async def close(self) -> None:
        """Disconnect all nodes; their tasks run on."""
        await asyncio.gather(*(m.close() for m in self.members.values()))
