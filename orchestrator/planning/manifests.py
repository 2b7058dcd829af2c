"""What of the cluster's state one node must know. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import NamedTuple

import msgspec

from agent.contract.cluster import ClusterNode, OpenPort, RemoteEndpoint, ServiceAddress, TunnelPeer
from agent.contract.container import Port
from agent.contract.manifest import Manifest
from agent.contract.network import VXLAN_PORT, AddressAssignment, Network
from agent.contract.task import Task
from agent.contract.volume import Volume, VolumeClient, VolumeHost
from orchestrator.placement.node import Node


class _Group(NamedTuple):
    """The tasks of one service, those of them that take connections, and its addresses by network."""

    members: list[Task]
    ready: list[Task]
    addresses: list[ServiceAddress]


class Manifests:
    """The manifests of all nodes at one moment: each has its own tasks, the networks and volumes that they use, and the far
    ends of its overlays.

    *backends* names the tasks that can take connections: each next set counts for a service that has none in those before it. A
    node that is alone has all networks and volumes, used or not. What several nodes have is made once, and an entry that is as
    it was in *before* is the same object: a change then costs each node what it is, not what the cluster is."""

    def __init__(
        self,
        nodes: Sequence[Node],
        revision: int,
        networks: Mapping[str, Network],
        volumes: Mapping[str, Volume],
        tasks: Iterable[Task],
        backends: Sequence[Set[str]],
        before: Manifests | None = None,
    ) -> None:
        self._nodes, self._revision, self.networks, self._volumes = list(nodes), revision, dict(networks), volumes
        self._tasks = list(tasks)
        self.alone = len(self._nodes) < 2
        self._mtu = 0 if self.alone else min(n.mtu for n in self._nodes)
        self._by_name = {n.name: n for n in self._nodes}
        self.here: dict[str, list[Task]] = {}
        """All tasks by their nodes, one-off ones and those that leave among them."""
        for task in self._tasks:
            self.here.setdefault(task.node, []).append(task)
        self._hosted: dict[str, set[str]] = {}
        """The networks on which a node itself has an address."""
        for network in self.networks.values():
            for host in network.hosts:
                self._hosted.setdefault(host.name, set()).add(network.name)
        self.groups = self._grouped(backends, before)
        self._addresses: dict[str, list[ServiceAddress]] = {}
        for group in self.groups.values():
            for address in group.addresses:
                self._addresses.setdefault(address.network, []).append(address)
        self.of_task: dict[str, tuple[Task, str, tuple[RemoteEndpoint, ...]]] = {}
        self.of_host: dict[tuple[str, str], RemoteEndpoint] = {}
        self._endpoints: dict[str, dict[str, list[RemoteEndpoint]]] = {}
        """Of a network wider than a node, by node, what there is of it there."""
        self.members: tuple[ClusterNode, ...] = ()
        if not self.alone:
            self._find_endpoints(before)
            found = tuple(_cluster_nodes(self._nodes, self.networks, self._tasks))
            self.members = before.members if before and before.members == found else found

    def of(self, node: str) -> Manifest:
        """The manifest of *node*."""
        here, own = self.here.get(node, []), self._by_name.get(node)
        used = {a.network for t in here for a in t.container.attachments} | self._hosted.get(node, set())
        mounted = {m.source for t in here for m in t.container.mounts if m.kind == "volume"}
        networks = [n for n in self.networks.values() if n.name in used]
        wide = [self._endpoints[n.name] for n in networks if n.name in self._endpoints]
        return Manifest(
            revision=self._revision,
            node=node,
            member=own.id if own else "",
            underlay=own.underlay if own and not self.alone else "",
            mtu=self._mtu,
            networks=tuple(self.networks.values() if self.alone else networks),
            volumes=tuple(
                _volume_for_node(node, v, self._nodes, self._tasks)
                for v in self._volumes.values()
                if self.alone or v.name in mounted or (v.exported and v.node == node)
            ),
            tasks=tuple(t for t in here if t.desired != "oneoff"),
            remote_endpoints=tuple(chain.from_iterable(f for ends in wide for at, f in ends.items() if at != node)),
            service_addresses=tuple(chain.from_iterable(self._addresses.get(n.name, ()) for n in networks)),
            tunnels=() if self.alone else tuple(_tunnels(node, self._nodes, self.networks, used)),
            nodes=self.members,
        )

    def _grouped(self, backends: Sequence[Set[str]], before: Manifests | None) -> dict[tuple[str, str], _Group]:
        members: dict[tuple[str, str], list[Task]] = {}
        for task in self._tasks:
            if task.desired != "oneoff":
                members.setdefault((task.stack, task.service), []).append(task)
        # addresses depend on the networks too: where one of them changed, all are looked at
        same = before is not None and before.alone == self.alone and before.networks == self.networks
        found = {}
        for key, tasks in members.items():
            ready = next((some for names in backends if (some := [t for t in tasks if t.name in names])), [])
            old = before.groups.get(key) if before else None
            if old is None or not same or old.members != tasks or old.ready != ready:
                fresh = service_addresses(tasks, ready, self.networks, alone=self.alone)
                known = {a: a for a in old.addresses} if old else {}
                old = _Group(tasks, ready, [known.get(a, a) for a in fresh])
            found[key] = old
        return found

    def _find_endpoints(self, before: Manifests | None) -> None:
        wide = {n.name for n in self.networks.values() if n.driver != "bridge"}
        self._endpoints = {n: {} for n in self.networks if n in wide}
        old = before.of_task if before else {}
        for task in self._tasks:
            underlay = self._by_name[task.node].underlay if task.node in self._by_name else ""
            entry = old.get(task.name)
            if entry is None or entry[0] is not task or entry[1] != underlay:
                entry = (task, underlay, _endpoints_of(task, underlay))
            self.of_task[task.name] = entry
            for end in entry[2]:
                if end.network in wide:
                    self._endpoints[end.network].setdefault(task.node, []).append(end)
        for name in sorted(self._endpoints):
            for host in self.networks[name].hosts:
                underlay = self._by_name[host.name].underlay if host.name in self._by_name else ""
                end = RemoteEndpoint(network=name, underlay=underlay, ipv4=host.ipv4, ipv6=host.ipv6)
                was = before.of_host.get((name, host.name)) if before else None
                self.of_host[name, host.name] = end = was if was is not None and was == end else end
                self._endpoints[name].setdefault(host.name, []).append(end)


def _endpoints_of(task: Task, underlay: str) -> tuple[RemoteEndpoint, ...]:
    return tuple(
        RemoteEndpoint(network=a.network, underlay=underlay, ipv4=a.ipv4, ipv6=a.ipv6, mac=a.mac, names=names(task, a.aliases))
        for a in task.container.attachments
    )


def _cluster_nodes(nodes: Sequence[Node], networks: Mapping[str, Network], tasks: Iterable[Task]) -> list[ClusterNode]:
    """All *nodes*, with what is published on one of them alone, and the ports of the overlays that each carries."""
    published: dict[str, set[tuple[int, str, str]]] = {}
    for task in (t for t in tasks if t.container.ports):
        way_in = networks.get(ingress_network(task, networks))
        shared = ingress_ports(task) if way_in and way_in.driver == "overlay" else ()
        published.setdefault(task.node, set()).update(
            (p.published, p.protocol, p.host_ip) for p in task.container.ports if p.published and p not in shared
        )
    carried: dict[str, set[int]] = {}
    for network in networks.values():
        for host in network.hosts if network.driver == "overlay" and network.vxlan_port != VXLAN_PORT else ():
            carried.setdefault(host.name, set()).add(network.vxlan_port)
    return [
        ClusterNode(
            name=n.name,
            addresses=tuple(sorted(addresses_of(n))),
            ports=tuple(OpenPort(port=p, protocol=kind, host_ip=host) for p, kind, host in sorted(published.get(n.name, ()))),
            vxlan_ports=tuple(sorted(carried.get(n.name, ()))),
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


def service_addresses(
    members: Sequence[Task], ready: Sequence[Task], networks: Mapping[str, Network], *, alone: bool
) -> list[ServiceAddress]:
    """The addresses of the service of *members* on its networks, and its ports that any node answers, with *ready* behind them.
    *alone*: on the only node of a cluster."""
    ports = ingress_ports(members[0])
    if alone:  # what one task alone publishes, of its service or of a range, it holds itself
        ports = tuple(p for p in ports if sum(p in m.container.ports for m in members) > 1)
    way_in = ingress_network(members[0], networks) if ports else ""
    service, out = members[0].service, []
    for attachment in members[0].container.attachments:
        network = networks.get(attachment.network)
        if network is None:
            continue
        vip = next((v for v in network.vips if v.name == service and network.stack == members[0].stack), None)
        mine = ports if network.name == way_in else ()
        if vip is None and not mine:
            continue
        shared = set.intersection(*(_aliases(t, network.name) for t in members))  # others are one replica's own
        called = (n.lower() for n in (service, *attachment.aliases) if n in shared | {service})
        out.append(
            ServiceAddress(
                service=f"{members[0].stack}/{service}",
                network=network.name,
                ipv4=vip.ipv4 if vip else "",
                ipv6=vip.ipv6 if vip else "",
                ports=mine,
                balanced=members[0].balanced,
                names=tuple(dict.fromkeys(called)) if vip else (),
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
