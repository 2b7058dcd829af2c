"""What of the cluster's state one node must know. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from agent.contract.cluster import ClusterNode, OpenPort, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.container import Port
from agent.contract.manifest import Manifest
from agent.contract.network import AddressAssignment, Network
from agent.contract.task import Task
from agent.contract.volume import Volume, VolumeClient, VolumeHost
from orchestrator.placement.node import Node


def manifest_of(
    node: str,
    nodes: Sequence[Node],
    revision: int,
    networks: Mapping[str, Network],
    volumes: Mapping[str, Volume],
    tasks: Iterable[Task],
    backends: Sequence[Set[str]],
) -> Manifest:
    """The manifest of *node*: its own tasks, the networks and volumes that they use, and the far ends of its overlays.

    *backends* names the tasks that can take connections: each next set counts for a service that has none in those before it.
    A node that is alone has all networks and volumes, used or not."""
    everything = list(tasks)
    here = [t for t in everything if t.node == node]
    mine = tuple(t for t in here if t.desired != "oneoff")
    alone = len(nodes) < 2
    used = {a.network for t in here for a in t.container.attachments}
    used |= {n.name for n in networks.values() if any(h.name == node for h in n.hosts)}
    mounted = {m.source for t in here for m in t.container.mounts if m.kind == "volume"}
    underlays = {n.name: n.underlay for n in nodes}
    return Manifest(
        revision=revision,
        node=node,
        member=next((n.id for n in nodes if n.name == node), ""),
        underlay="" if alone else underlays.get(node, ""),
        mtu=0 if alone else min(n.mtu for n in nodes),
        networks=tuple(n for n in networks.values() if alone or n.name in used),
        volumes=tuple(
            _volume_for_node(node, v, nodes, everything)
            for v in volumes.values()
            if alone or v.name in mounted or (v.exported and v.node == node)
        ),
        tasks=mine,
        remote_endpoints=() if alone else tuple(_peers(node, underlays, networks, used, everything)),
        service_addresses=tuple(_virtuals(networks, used, everything, backends, alone=alone)),
        tunnels=() if alone else tuple(_tunnels(node, nodes, networks, used)),
        nodes=() if alone else tuple(_cluster_nodes(nodes, networks, everything)),
    )


def _cluster_nodes(nodes: Sequence[Node], networks: Mapping[str, Network], tasks: Iterable[Task]) -> list[ClusterNode]:
    """All *nodes*, with what is published on one of them alone."""
    published: dict[str, set[tuple[int, str, str]]] = {}
    for task in (t for t in tasks if t.container.ports):
        way_in = networks.get(ingress_network(task, networks))
        shared = ingress_ports(task) if way_in and way_in.driver == "overlay" else ()
        published.setdefault(task.node, set()).update(
            (p.published, p.protocol, p.host_ip) for p in task.container.ports if p.published and p not in shared
        )
    return [
        ClusterNode(
            name=n.name,
            addresses=tuple(sorted(addresses_of(n))),
            ports=tuple(OpenPort(port=p, protocol=kind, host_ip=host) for p, kind, host in sorted(published.get(n.name, ()))),
        )
        for n in nodes
    ]


def addresses_of(node: Node) -> set[str]:
    """All addresses of *node* that are known: what it says itself, and what it is reached at from elsewhere."""
    outside = node.target.rpartition("@")[2]
    target = outside[1:].partition("]")[0] if outside.startswith("[") else outside.partition(":")[0]
    found = set()
    for word in (*node.info.addresses, node.underlay, target):  # a target may be a name, and a node may say anything
        with contextlib.suppress(ValueError):
            found.add(str(ipaddress.ip_address(word)))
    return found


def _tunnels(node: str, nodes: Sequence[Node], networks: Mapping[str, Network], used: Set[str]) -> list[TunnelPeer]:
    """The other nodes of the encrypted networks *used*; one whose key is not known yet has nothing there either."""
    carriers = {h.name for n in used if n in networks and networks[n].encrypted for h in networks[n].hosts} - {node}
    return [
        TunnelPeer(name=n.name, underlay=n.underlay, key=n.info.tunnel_key)
        for n in nodes
        if n.name in carriers and n.underlay and n.info.tunnel_key
    ]


def _volume_for_node(node: str, volume: Volume, nodes: Sequence[Node], tasks: Iterable[Task]) -> Volume:
    """*volume* with its home, or on its home with its guests, where that node exports it."""
    home = next((n for n in nodes if n.name == volume.node), None)
    if not volume.exported or home is None:
        return volume
    if home.name != node:
        user, _, rest = home.target.rpartition("@")
        port = rest.rpartition(":")[2] if ":" in rest.rpartition("]")[2] else ""
        return msgspec.structs.replace(
            volume,
            host=VolumeHost(
                node=home.name,
                address=home.underlay if home.host_key else "",
                port=int(port or 22),
                user=user or "root",
                host_key=home.host_key,
            ),
        )
    users = {
        t.node
        for t in tasks
        if t.node != node and any(m.kind == "volume" and m.source == volume.name for m in t.container.mounts)
    }
    keys = {n.name: n.info.ssh_key for n in nodes}
    return msgspec.structs.replace(
        volume, clients=tuple(VolumeClient(node=n, key=keys[n]) for n in sorted(users) if keys.get(n))
    )


def _peers(
    node: str, underlays: Mapping[str, str], networks: Mapping[str, Network], used: Set[str], tasks: Iterable[Task]
) -> list[RemoteEndpoint]:
    wide = {n for n in used if n in networks and networks[n].driver != "bridge"}
    out = [
        RemoteEndpoint(
            network=a.network,
            underlay=underlays.get(t.node, ""),
            ipv4=a.ipv4,
            ipv6=a.ipv6,
            mac=a.mac,
            names=names(t, a.aliases),
        )
        for t in tasks
        if t.node != node
        for a in t.container.attachments
        if a.network in wide
    ]
    out += [
        RemoteEndpoint(network=n, underlay=underlays.get(h.name, ""), ipv4=h.ipv4, ipv6=h.ipv6)
        for n in sorted(wide)
        for h in networks[n].hosts
        if h.name != node
    ]
    return out


def _virtuals(
    networks: Mapping[str, Network], used: Set[str], tasks: Iterable[Task], backends: Sequence[Set[str]], *, alone: bool
) -> list[ServiceAddress]:
    """Services with an address of their own on one of the networks *used*, or with ports that any node answers."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        if task.desired != "oneoff":
            groups.setdefault((task.stack, task.service), []).append(task)
    out = []
    for (stack, service), members in groups.items():
        ports = ingress_ports(members[0])
        if alone:  # what one task alone publishes, of its service or of a range, it holds itself
            ports = tuple(p for p in ports if sum(p in m.container.ports for m in members) > 1)
        way_in = ingress_network(members[0], networks) if ports else ""
        ready = next((found for names in backends if (found := [t for t in members if t.name in names])), [])
        for attachment in members[0].container.attachments:
            network = networks.get(attachment.network)
            if network is None or network.name not in used:
                continue
            vip = next((v for v in network.vips if v.name == service and network.stack == stack), None)
            mine = ports if network.name == way_in else ()
            shared = set.intersection(*(_aliases(t, network.name) for t in members))  # others are one replica's own
            if vip is None and not mine:
                continue
            out.append(
                ServiceAddress(
                    service=f"{stack}/{service}",
                    network=network.name,
                    ipv4=vip.ipv4 if vip else "",
                    ipv6=vip.ipv6 if vip else "",
                    ports=mine,
                    balanced=members[0].balanced,
                    names=tuple(dict.fromkeys(n.lower() for n in (service, *attachment.aliases) if n in shared | {service}))
                    if vip
                    else (),
                    backends=tuple(
                        AddressAssignment(name=t.name, ipv4=a.ipv4, ipv6=a.ipv6)
                        for t in ready
                        for a in t.container.attachments
                        if a.network == network.name
                    ),
                    weights=connection_weights(ready),
                )
            )
    return out


def _aliases(task: Task, network: str) -> set[str]:
    return {alias for a in task.container.attachments if a.network == network for alias in a.aliases}


def connection_weights(ready: Sequence[Task]) -> tuple[int, ...]:
    """The weight of each of *ready* if some of them have a share of the connections; () if all are alike."""
    few = [t for t in ready if t.share >= 0]
    if not few or len(few) == len(ready):
        return ()
    part = round(few[0].share * 100)
    return tuple(part * (len(ready) - len(few)) if t.share >= 0 else (10_000 - part) * len(few) for t in ready)


def ingress_ports(task: Task) -> tuple[Port, ...]:
    """The ports of *task*'s service that any node answers."""
    return tuple(p for p in task.container.ports if p.mode == "ingress" and p.published and p.host_ip in ("", "0.0.0.0", "::"))


def ingress_network(task: Task, networks: Mapping[str, Network]) -> str:
    """The network by which connections to published ports come: the one that has the default route."""
    ranked = sorted(
        (a for a in task.container.attachments if a.network in networks),
        key=lambda a: (-a.gw_priority, networks[a.network].internal, a.network),
    )
    return ranked[0].network if ranked else ""


def names(task: Task, aliases: Sequence[str]) -> tuple[str, ...]:
    """What containers on a network call *task*."""
    own = [task.container_name or task.name, *aliases, task.container.hostname]
    if task.desired != "oneoff":
        own += [task.service, f"tasks.{task.service}"]
    return tuple(dict.fromkeys(n.lower() for n in own if n))
