"""Nodes join the cluster, change and leave it. Which nodes there are, and how each is reached, is the cluster's to know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.placement import taints
from orchestrator.placement.node import Availability, Node
from orchestrator.server.clock_skew import check_clock, clock_skew_s
from orchestrator.server.cluster import Cluster
from orchestrator.server.members import NodeConnection
from orchestrator.server.node_add import NodeAddRequest, install_node, own_host_key
from orchestrator.server.removed_nodes import RemovedNodes, notify, tombstone
from orchestrator.store.interface import Delete, Put, StoreError
from orchestrator.transport.manifest_publisher import EtcdManifestPublisher, prefix_of

ANSWER_TIMEOUT_S = 60.0
"""How long a new agent may take to answer."""


class NodeUpdateRequest(WireStruct, frozen=True, kw_only=True):
    """`node update`, `drain` and `taint`. *labels* are set, those with a key of *unset* removed. *taints* are set, one for each
    key and effect; those with a key of *untaint* are removed. *availability* None keeps it; a drain that *departs* ends when
    the machine is back. *address* is how SSH reaches the node from now on, "" keeps it."""

    labels: tuple[tuple[str, str], ...] = ()
    unset: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    untaint: tuple[str, ...] = ()
    availability: Availability | None = None
    departs: bool = False
    address: str = ""


class Membership:
    """Adds, changes and removes nodes of *cluster*; *run* is the folder of forwarded sockets."""

    def __init__(self, cluster: Cluster, run: Path) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._adding = asyncio.Lock()
        self._removed = RemovedNodes(cluster.store, run, lambda: cluster.links)

    async def start(self) -> None:
        """Notify removed nodes that do not know of their removal yet. Raises StoreError."""
        await self._removed.start()

    async def add(self, request: NodeAddRequest) -> Node:
        """Check the host, install and start its agent, and make it a member.

        Raises RefusedError or UnreachableError; the cluster is then as it was."""
        cluster = self._cluster
        own = cluster.members[cluster.local]
        if "rootless" in own.node.info.features:
            raise RefusedError(
                "this server runs without root, where no other host reaches it: `node add` needs one of root's", 409
            )
        node, own_address = await install_node(request)
        node = (await cluster.with_roles([node]))[0]
        async with self._adding:
            check_duplicate(node, [m.node for m in cluster.members.values()])
            await self._learn_own_address(own_address)
            member = cluster.connect(node)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await member.synced.wait()
        except TimeoutError:
            await self._forget(member)
            raise UnreachableError(f"the agent of {node.target} was started and does not answer: {member.problem}") from None
        try:
            check_clock(node.target, clock_skew_s(own, member))
        except RefusedError:
            await self._forget(member)
            raise
        if request.transport == "etcd":
            await self._enable_manifest_watch(member)
        await cluster.measure_paths([member])
        await cluster.save(member.node)
        if member.node.name in cluster.unreadable:
            await self._store.transact((), [Delete(f"damaged/nodes/{member.node.name}")])
            cluster.unreadable.discard(member.node.name)
        await cluster.deliver()
        return member.node

    async def _enable_manifest_watch(self, member: NodeConnection) -> None:
        """Let the node read its manifest from etcd from now on. Raises RefusedError if the store grants no access."""
        name = member.node.name
        try:
            access = await self._store.grant_read(name, prefix_of(name))
        except StoreError as error:
            await self._forget(member)
            raise RefusedError(f"--transport etcd: {error}", 409) from error
        member.manifest_publisher = EtcdManifestPublisher(self._store, name)
        member.node = msgspec.structs.replace(member.node, transport="etcd")
        await member.manifest_publisher.publish(self._cluster.manifest(name))
        await member.client.call("PUT", "/pystack/manifest-source", data=msgspec.json.encode(access))

    async def _learn_own_address(self, address: str) -> None:
        """A node reaches this host at *address*: so do others, if nothing else is known. Raises StoreError."""
        own = self._cluster.members[self._cluster.local]
        if not own.node.underlay and not address.startswith("127.") and address != "::1":
            own.node = msgspec.structs.replace(own.node, underlay=address, host_key=await own_host_key(address))
            await self._cluster.save(own.node)

    async def take_in(self, node: Node, own_address: str, *also: Put) -> None:
        """Make *node* a member, which joins by itself and reached this host at *own_address*; write *also* with it. Raises
        RefusedError, StoreError."""
        async with self._adding:
            node = (await self._cluster.with_roles([node]))[0]
            check_duplicate(node, [m.node for m in self._cluster.members.values()])
            await self._learn_own_address(own_address)
            await self._cluster.save(node, *also)
            self._cluster.connect(node)

    def is_leaving(self, ident: str) -> bool:
        """Whether the node with the ID *ident* was removed and does not know it yet: it is linked to be notified."""
        return ident in self._removed.waiting

    async def _change_address(self, member: NodeConnection, target: str) -> NodeConnection:
        """Reach a node at *target* from now on. Raises RefusedError or UnreachableError; the old address then stays."""
        from orchestrator.transport import ssh

        cluster = self._cluster
        if member.tunnel is None:
            raise RefusedError("the server runs on this node: it is reached without SSH", 409)
        if member.node.transport == "uplink":
            raise RefusedError(f"{member.node.name} dials the servers itself, wherever it is: there is nothing to change", 409)
        async with await ssh.connect(target, member.node.host_key):
            pass  # the same host key: it is the same node
        await member.close()
        new = cluster.connect(msgspec.structs.replace(member.node, target=target))
        await cluster.save(new.node)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await new.synced.wait()
        except TimeoutError:
            raise UnreachableError(
                f"{target} is the node {new.node.name}, and its agent does not answer: {new.problem}"
            ) from None
        return new

    async def change(self, name: str, request: NodeUpdateRequest, *also: Put, emptied: tuple[str, ...] | None = None) -> Node:
        """Change labels, taints, availability or address of a node, and what it is *emptied* of unless that is None, and write
        *also* with it. Raises RefusedError, UnreachableError."""
        cluster = self._cluster
        member = cluster.get(name)
        if request.address:
            member = await self._change_address(member, request.address)
        emptied = member.node.emptied if emptied is None else emptied
        member.node = msgspec.structs.replace(updated(member.node, request), emptied=emptied)
        await cluster.save(member.node, *also)
        return member.node

    async def remove(self, name: str, tasks: int, *, force: bool) -> None:
        """Remove a node. One with tasks is removed only with *force*; its agent then removes them, now or when it is back."""
        cluster = self._cluster
        member = cluster.get(name)
        if member.node.name == cluster.local:
            raise RefusedError("the server runs on this node: it cannot leave its own cluster; drain it instead", 409)
        if tasks and not force:
            raise RefusedError(f"node {name} has {tasks} tasks: `pystack node drain {name}` first, or --force", 409)
        removed, put = tombstone(member.node)
        await self._store.transact((), [Delete(f"nodes/{member.node.name}"), put])
        cluster.drop(member.node.name)
        notified = member.ready and await notify(member.client, member.node)
        await member.close()
        if notified:
            await self._removed.forget(member.node)
        else:
            self._removed.keep_notifying(removed)
        if member.manifest_publisher:
            await member.manifest_publisher.clear()
            await self._store.revoke_read(member.node.name)
        await cluster.deliver()

    async def _forget(self, member: NodeConnection) -> None:
        """Disconnect *member* and, if it answers, have its agent remove everything."""
        cluster = self._cluster
        if cluster.members.get(member.node.name) is member:
            del cluster.members[member.node.name]
        if member.ready:
            try:
                if member.manifest_publisher:
                    await member.client.call("DELETE", "/pystack/manifest-source")
                await member.client.deliver(Manifest())
            except PystackError:
                pass  # the user wants it gone, reached or not
        await member.close()

    async def close(self) -> None:
        """Stop waiting for removed nodes."""
        await self._removed.close()


def updated(node: Node, request: NodeUpdateRequest) -> Node:
    """*node* with the labels, taints and availability that *request* asks for. Raises RefusedError for a malformed taint."""
    labels = {k: v for k, v in node.labels if k not in request.unset} | dict(request.labels)
    if wrong := [why for t in request.taints if (why := taints.syntax_problem(t))]:
        raise RefusedError("; ".join(wrong))
    kept = {taints.kind(t): t for t in node.taints if taints.kind(t)[0] not in request.untaint}
    kept |= {taints.kind(t): t for t in request.taints}
    return msgspec.structs.replace(
        node,
        labels=tuple(sorted(labels.items())),
        taints=tuple(sorted(kept.values())),
        availability=request.availability or node.availability,
        departed=request.departs if request.availability else node.departed,
    )


def check_duplicate(node: Node, nodes: Iterable[Node]) -> None:
    """Raises RefusedError (409) if one of *nodes* has the name or the address of *node*."""
    for other in nodes:
        if other.name == node.name:
            raise RefusedError(f"a node is called {node.name} already: choose another name with --name", 409)
        if node.underlay and other.underlay == node.underlay:
            raise RefusedError(
                f"node {other.name} has the address {node.underlay} already: two nodes behind one address? "
                "say with --underlay under which address the others reach this one",
                409,
            )
