"""Which nodes there are: added, labelled, drained, removed; kept in the store under `nodes/<name>`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from agent.manifest import Manifest, Network, Record, Task, TaskStatus
from orchestrator.couriers.mailbox import Mailbox, prefix_of
from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.placement import taints
from orchestrator.placement.node import Availability, Node
from orchestrator.server.members import NodeConnection, key_of, shared
from orchestrator.store.interface import Delete, Put, Store, StoreError

Heard = Callable[[str, TaskStatus], None]
MAX_SKEW_S = 5.0
ANSWER_S = 15.0
SMALLEST_MTU = 1280  # IPv6 has no smaller one
MEASURED = 4
"""To how many others the paths of a node are measured."""
log = logging.getLogger(__name__)


class NodeAddRequest(Record, frozen=True, kw_only=True):
    """`node add`. *host_key* is the fingerprint that the user accepts; *underlay* says which address the other nodes
    shall use, where it is not the one that SSH arrives at."""

    target: str
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    host_key: str = ""
    underlay: str = ""
    courier: Literal["ssh", "etcd"] = "ssh"


class NodeUpdateRequest(Record, frozen=True, kw_only=True):
    """*labels* are set, those of *unset* removed; *taints* are set, one a key and effect, those with a key of *untaint*
    removed; *availability* None leaves it; *address* is how it is reached over SSH from now on, "" as before."""

    labels: tuple[tuple[str, str], ...] = ()
    unset: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    untaint: tuple[str, ...] = ()
    availability: Availability | None = None
    address: str = ""


class Cluster:
    """*run* is the folder for forwarded sockets; *manifest* says what a node must be; *advertise* is how other servers reach
    this host over SSH, "" where there are none."""

    def __init__(
        self, store: Store, local: str, socket: Path, run: Path, manifest: Callable[[str], Manifest], heard: Heard,
        advertise: str = "",
    ) -> None:
        self.store = store
        self.local = local
        self.members: dict[str, NodeConnection] = {}
        self._socket = socket
        self._run = run
        self._manifest = manifest
        self._heard = heard
        self._advertise = advertise
        self._adding = asyncio.Lock()
        self._spreading: asyncio.Task[None] | None = None
        self._kept: dict[str, tuple[object, ...]] = {}

    async def start(self) -> None:
        """Take up the nodes of the store, this host among them, and wait for this host's own agent."""
        nodes = [msgspec.json.decode(e.value, type=Node) for e in await self.store.scan("nodes/")]
        self._kept = {n.name: shared(n.facts) for n in nodes}
        if self._advertise:
            nodes = await self._among_servers(nodes)
        elif all(n.target for n in nodes):
            own = Node(name=self.local, id=os.urandom(8).hex())
            await self._keep(own)
            nodes.append(own)
        if not self._advertise:
            self.local = next(n.name for n in nodes if not n.target)
        for node in await self._with_roles(nodes):
            self._take(node)
        await asyncio.wait_for(self.members[self.local].synced.wait(), 30)

    async def _with_roles(self, nodes: Sequence[Node]) -> list[Node]:
        """*nodes*, those that may lead marked so: such hosts say it in the store."""
        servers = {e.key.removeprefix("servers/") for e in await self.store.scan("servers/")}
        return [msgspec.structs.replace(n, server=n.name in servers or n.name == self.local) for n in nodes]

    async def _among_servers(self, nodes: Sequence[Node]) -> list[Node]:
        """*nodes* with this host as the other servers must know it: by name, and with the way to it."""
        from orchestrator.couriers.ssh import Target

        known = next((n for n in nodes if n.name == self.local), Node(name=self.local, id=os.urandom(8).hex()))
        address = Target.parse(self._advertise).host
        own = msgspec.structs.replace(
            known, target=self._advertise, root=str(self._run), underlay=known.underlay or address,
            host_key=await _own_host_key(address),
        )
        if own != known or known not in nodes:
            await self._keep(own)
        return [*(n for n in nodes if n.name != own.name), own]

    def _take(self, node: Node) -> NodeConnection:
        tunnel, socket = None, self._socket
        if node.target and node.name != self.local:
            from orchestrator.couriers.ssh import Tunnel

            folder = self._run / "nodes"
            folder.mkdir(mode=0o700, exist_ok=True)
            socket = folder / f"{node.id}.sock"
            tunnel = Tunnel(node.target, node.host_key, f"{node.root}/docker.sock", socket)
        mailbox = Mailbox(self.store, node.name) if node.courier == "etcd" and node.name != self.local else None
        member = NodeConnection(node, socket, self._manifest, lambda status: self._heard(node.name, status), tunnel, mailbox)
        self.members[node.name] = member
        member.returned = self._welcome
        member.start()
        return member

    async def _welcome(self, member: NodeConnection) -> None:
        """A node that answers again may be another than the others were told."""
        moved, told = await self._follow_addresses(member), await self._tell([member])
        if moved or told:
            self._spreading = asyncio.create_task(self.deliver())

    async def _tell(self, members: Iterable[NodeConnection]) -> bool:
        """Keep of *members* what the others must know, before they are heard after a start of the server; True where that is
        news. One that is not kept yet is not a node of the cluster yet."""
        news = [m for m in members if self._kept.get(m.node.name, shared(m.node.facts)) != shared(m.node.facts)]
        for member in news:
            try:
                await self._keep(member.node)
            except StoreError as error:  # a full disk: what is known is known, for as long as this server lives
                log.warning("what node %s is now is not kept: %s", member.node.name, error)
        return bool(news)

    async def _follow_addresses(self, member: NodeConnection) -> bool:
        """A node that lost the address by which the others know it is reached at the one at which SSH arrives; so is this
        host. True where one moved."""
        mine, theirs = member.tunnel.ends if member.tunnel else ("", "")
        moved = []
        if theirs and not member.node.facts.addressed and theirs != member.node.underlay:
            moved.append((member, theirs))
        own = self.members.get(self.local)
        if own and own.ready and own.node.underlay and not self._advertise and mine not in ("", own.node.underlay):
            await own.refresh_facts()
            if not own.node.facts.addressed:
                moved.append((own, mine))
        for one, address in moved:
            log.warning("node %s is at %s now, and not at %s", one.node.name, address, one.node.underlay)
            one.node = msgspec.structs.replace(one.node, underlay=address)
            await self._keep(one.node)
            await one.refresh_facts()
        return bool(moved)

    async def _keep(self, node: Node) -> None:
        await self.store.transact((), [Put(f"nodes/{node.name}", msgspec.json.encode(node))])
        self._kept[node.name] = shared(node.facts)

    def get(self, name: str) -> NodeConnection:
        """By name or ID; `local` is the server's own host. Raises RefusedError."""
        if name == "local":
            return self.members[self.local]
        for member in self.members.values():
            if name in (member.node.name, member.node.id):
                return member
        raise RefusedError(f"there is no node {name}; there is: {', '.join(sorted(self.members))}", 404)

    @property
    def ready(self) -> set[str]:
        return {name for name, member in self.members.items() if member.ready}

    def unreachable_reason(self, name: str) -> str:
        """Why nothing is heard of node *name* now, "" where it answers."""
        member = self.members.get(name)
        if member is None:
            return f"node {name} is gone from the cluster"
        return "" if member.ready else f"node {name} does not answer: {member.problem}"

    async def refresh_facts(self) -> None:
        """Ask every node that answers what it is now: links come and go without a word. One that fails is seen to be
        down by others."""
        await asyncio.gather(*(m.refresh_facts() for m in self.members.values() if m.ready), return_exceptions=True)
        if await self._tell(self.members.values()):
            self._spreading = asyncio.create_task(self.deliver())

    async def ask_keys(self, nodes: Iterable[str], purpose: str) -> None:
        """Have the public keys of *nodes* for *purpose*, which those that have none make now."""
        members = [self.members[n] for n in nodes if n in self.members]
        await asyncio.gather(*(m.ask_key(purpose) for m in members if m.ready and not key_of(m.node.facts, purpose)))
        await self._tell(members)

    async def ask_keys_for(self, tasks: Iterable[Task], networks: Iterable[Network]) -> None:
        """Have the public keys that the manifests of *tasks* and *networks* need: of nodes that get a secret, and of those
        that an encrypted network spans. To be called before either is stored: a manifest leaves out what it has no key for."""
        await self.ask_keys({t.node for t in tasks if any(f.secret for f in t.container.files)}, "seal")
        await self.ask_keys({h.name for n in networks if n.encrypted for h in n.hosts}, "tunnel")

    async def deliver(self, nodes: Iterable[str] | None = None) -> None:
        """Bring the nodes what changed for them, side by side."""
        chosen = [self.members[n] for n in (self.members if nodes is None else nodes) if n in self.members]
        if len(chosen) == 1:
            return await chosen[0].deliver()
        await asyncio.gather(*(m.deliver() for m in chosen))

    async def add(self, wish: NodeAddRequest) -> Node:
        """Check the host, install and start its agent, and make it a member. Raises RefusedError or UnreachableError, and the
        cluster is then as it was."""
        from orchestrator.couriers import bootstrap, ssh

        if "rootless" in self.members[self.local].node.facts.features:
            raise RefusedError(
                "this server runs without root, where no other host reaches it: `node add` needs one of root's", 409
            )
        host_key = ""
        if wish.host_key:
            host_key = await ssh.host_key_of(wish.target)
            if ssh.fingerprint(host_key) != wish.host_key:
                raise RefusedError(
                    f"{wish.target} shows the host key {ssh.fingerprint(host_key)}, not {wish.host_key}: nothing was done", 409
                )
        async with await ssh.connect(wish.target, host_key) as connection:
            found = await bootstrap.prepare(connection, wish.target)
            accepted = connection.get_server_host_key()
            assert accepted is not None
            node = Node(
                name=wish.name or found.hostname, id=os.urandom(8).hex(), target=wish.target, labels=wish.labels,
                underlay=wish.underlay or found.underlay, root=found.run,
                host_key=accepted.export_public_key().decode().strip(),
            )
            mine = str(connection.get_extra_info("sockname")[0])
        node = (await self._with_roles([node]))[0]
        async with self._adding:
            self._refuse_twin(node)
            own = self.members[self.local]
            if not own.node.underlay and not mine.startswith("127.") and mine != "::1":
                own.node = msgspec.structs.replace(own.node, underlay=mine, host_key=await _own_host_key(mine))
                await self._keep(own.node)
            member = self._take(node)
        try:
            await asyncio.wait_for(member.synced.wait(), ANSWER_S)
        except TimeoutError:
            await self._forget(member)
            raise UnreachableError(f"the agent of {wish.target} was started and does not answer: {member.problem}") from None
        own = self.members[self.local]
        skew = member.node.facts.clock - own.node.facts.clock - (member.heard_at - own.heard_at)
        if abs(skew) > MAX_SKEW_S:
            await self._forget(member)
            raise RefusedError(
                f"the clock of {wish.target} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}: set it (chrony, "
                "systemd-timesyncd) and add the node again", 409
            )
        if wish.courier == "etcd":
            await self._open_mailbox(member)
        await self.measure([member])
        await self._keep(member.node)
        await self.deliver()
        return member.node

    async def measure(self, members: Iterable[NodeConnection]) -> None:
        """Find what the paths between *members* and the others carry, where that is less than their links do. What cannot be
        asked (an echo that nobody answers) is taken to carry what the links say."""
        for member in members:
            others = [m for m in self.members.values() if m.ready and m.node.underlay and m is not member][:MEASURED]
            if not member.node.underlay or not others:
                continue
            link = min(member.node.facts.mtu, *(m.node.facts.mtu for m in others))
            sizes = [*range(SMALLEST_MTU, min(link, 1500), 4), *range(1500, link, 100), link]
            probes = [(other, size) for other in others for size in sizes]
            asked = [{"source": member.node.underlay, "target": o.node.underlay, "size": s} for o, s in probes]
            try:
                echoes = await member.courier.call("POST", "/pystack/probe", json=asked)
            except PystackError:
                continue
            largest: dict[str, int] = {}
            for (other, size), echo in zip(probes, echoes, strict=True):
                if not echo["problem"]:
                    largest[other.node.name] = max(largest.get(other.node.name, 0), size)
            found = min(largest.values(), default=link)
            path_mtu = found if found < link else 0
            if path_mtu != member.node.path_mtu:
                log.warning("paths to node %s carry %d bytes, its link %d", member.node.name, found, link)
                member.node = msgspec.structs.replace(member.node, path_mtu=path_mtu)
                await self._keep(member.node)

    async def _open_mailbox(self, member: NodeConnection) -> None:
        """From now on the node reads its manifest itself. Raises RefusedError where the store lets nobody in."""
        name = member.node.name
        try:
            access = await self.store.admit(name, prefix_of(name))
        except StoreError as error:
            await self._forget(member)
            raise RefusedError(f"--transport etcd: {error}", 409) from error
        member.mailbox = Mailbox(self.store, name)
        member.node = msgspec.structs.replace(member.node, courier="etcd")
        await member.mailbox.put(self._manifest(name))
        await member.courier.call("PUT", "/pystack/mailbox", data=msgspec.json.encode(access))

    def _refuse_twin(self, node: Node) -> None:
        for other in self.members.values():
            if other.node.name == node.name:
                raise RefusedError(f"a node is called {node.name} already: choose another name with --name", 409)
            if node.underlay and other.node.underlay == node.underlay:
                raise RefusedError(
                    f"node {other.node.name} has the address {node.underlay} already: two nodes behind one address? "
                    "say with --underlay under which address the others reach this one", 409
                )

    async def _readdress(self, member: NodeConnection, target: str) -> NodeConnection:
        """Reach a node at *target* from now on. Raises RefusedError, UnreachableError; it is then reached as before."""
        from orchestrator.couriers import ssh

        if member.tunnel is None:
            raise RefusedError("the server runs on this node: it is reached without SSH", 409)
        async with await ssh.connect(target, member.node.host_key):
            pass  # the same host key: it is the same node
        await member.close()
        new = self._take(msgspec.structs.replace(member.node, target=target))
        await self._keep(new.node)
        try:
            await asyncio.wait_for(new.synced.wait(), ANSWER_S)
        except TimeoutError:
            raise UnreachableError(
                f"{target} is the node {new.node.name}, and its agent does not answer: {new.problem}"
            ) from None
        return new

    async def change(self, name: str, wish: NodeUpdateRequest) -> Node:
        member = self.get(name)
        if wish.address:
            member = await self._readdress(member, wish.address)
        labels = {k: v for k, v in member.node.labels if k not in wish.unset} | dict(wish.labels)
        if wrong := [why for t in wish.taints if (why := taints.refused(t))]:
            raise RefusedError("; ".join(wrong))
        kept = {taints.kind(t): t for t in member.node.taints if taints.kind(t)[0] not in wish.untaint}
        kept |= {taints.kind(t): t for t in wish.taints}
        member.node = msgspec.structs.replace(
            member.node, labels=tuple(sorted(labels.items())), taints=tuple(sorted(kept.values())),
            availability=wish.availability or member.node.availability,
        )
        await self._keep(member.node)
        return member.node

    async def remove(self, name: str, tasks: int, *, force: bool) -> None:
        """Let a node go. One that has tasks goes only with *force*; its agent then takes them away, if it is reached."""
        member = self.get(name)
        if member.node.name == self.local:
            raise RefusedError("the server runs on this node: it cannot leave its own cluster; drain it instead", 409)
        if tasks and not force:
            raise RefusedError(f"node {name} has {tasks} tasks: `pystack node drain {name}` first, or --force", 409)
        await self._forget(member)
        self._kept.pop(member.node.name, None)
        await self.store.transact((), [Delete(f"nodes/{member.node.name}")])
        if member.mailbox:
            await member.mailbox.clear()
            await self.store.dismiss(member.node.name)
        await self.deliver()

    async def _forget(self, member: NodeConnection) -> None:
        if self.members.get(member.node.name) is member:
            del self.members[member.node.name]
        if member.ready:
            try:
                if member.mailbox:
                    await member.courier.call("DELETE", "/pystack/mailbox")
                await member.courier.deliver(Manifest())
            except PystackError:
                pass  # it was the user's wish that it goes, reached or not
        await member.close()

    async def close(self) -> None:
        await asyncio.gather(*(m.close() for m in self.members.values()))


async def _own_host_key(address: str) -> str:
    """The key of this host's own SSH server, by which other nodes know it; "" where it has none."""
    from orchestrator.couriers import ssh

    try:
        return await ssh.host_key_of(f"root@{address}")
    except PystackError:
        return ""
