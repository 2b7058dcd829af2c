"""Computes the state of kernel, firewall and data path from networks, endpoints and the cluster. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from agent.contract.cluster import RemoteEndpoint, ServiceAddress
from agent.contract.manifest import Manifest
from agent.contract.network import Network, Subnet
from agent.engine.networks import nftables, ports
from agent.engine.networks.views import EndpointView
from agent.engine.records import Record
from agent.errors import AgentError, ConflictError
from agent.rootless.slirp4netns import ForwardedPort
from netplugins import driver, firewall, wireguard
from netplugins.resolver.table import DataplaneState, Forward

WILDCARDS = ("0.0.0.0", "::")
"""The addresses of a socket that listens at all of the host's."""


class TunnelKeys(msgspec.Struct, frozen=True):
    """This node's WireGuard keys, base64."""

    private: str
    public: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a translation, at one moment.

    *networks* by name, *links* the name of each one's bridge; *records* are the attached containers, *views* their views by ID;
    *manifest* describes the rest of the cluster. *prefix* begins the names of our links, *table* is our nftables table.
    *opened* are the ports (protocol, port) that containers reach on every node. *rootless*: the host's ports are forwarded into
    this network namespace, which has none of the host's addresses."""

    networks: Mapping[str, Network]
    links: Mapping[str, str]
    records: tuple[Record, ...]
    views: Mapping[str, EndpointView]
    manifest: Manifest
    host: driver.HostCapabilities
    drivers: Mapping[str, driver.Driver]
    tunnel_keys: TunnelKeys | None
    prefix: str
    table: str
    opened: frozenset[tuple[str, int]]
    rootless: bool


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of this node's networks, complete. *near* are the addresses of own endpoints on networks whose services
    are balanced, *own* those of all own endpoints, *forwarded* the ports that the host of a rootless node forwards to it."""

    objects: frozenset[driver.KernelObject]
    fdb: frozenset[driver.FdbEntry]
    policies: tuple[driver.FirewallPolicy, ...]
    published: list[driver.PortMapping]
    balanced: list[driver.LoadBalancer]
    near: tuple[str, ...]
    nodes: driver.Nodes
    own: frozenset[str]
    remote: tuple[RemoteEndpoint, ...]
    dataplane: DataplaneState
    forwarded: frozenset[ForwardedPort]
    table: str

    def ruleset(self) -> firewall.Ruleset:
        """The firewall of the node."""
        return firewall.render(self.table, self.policies, self.published, self.balanced, self.near, self.nodes)

    def alive(self) -> set[str]:
        """The addresses of all endpoints that this node knows."""
        return {*self.own, *(a for peer in self.remote for a in (peer.ipv4, peer.ipv6))}


def translate(now: Snapshot) -> Desired:
    """The desired state for *now*. Raises AgentError if a network with endpoints cannot be made here, ConflictError if a
    rootless node is to publish a port that it cannot."""
    tunnel = tunnel_device(now)
    objects, fdb, policies = _kernel_state(now, tunnel)
    mappings = port_mappings(now)
    near = local_addresses(now)
    # without root the host's addresses do not exist in this namespace
    published = [msgspec.structs.replace(p, host_ip="") for p in mappings] if now.rootless else mappings
    services = now.manifest.service_addresses
    return Desired(
        objects=objects,
        fdb=fdb,
        policies=policies,
        published=published,
        balanced=load_balancers(services, near),
        near=tuple(sorted(near)),
        nodes=cluster_nodes(now, tunnel),
        own=frozenset(a for r in now.records for e in r.endpoints for a in (e.ipv4, e.ipv6)),
        remote=now.manifest.remote_endpoints,
        dataplane=dataplane_state(now, published),
        forwarded=frozenset(forwarded_ports(mappings, services)) if now.rootless else frozenset(),
        table=now.table,
    )


def gateway(network: Network, subnet: Subnet) -> str:
    """The address that the host has on *subnet*; a LAN has a gateway of its own, or none."""
    return subnet.gateway or ("" if network.on_lan else str(ipaddress.ip_network(subnet.cidr)[1]))


def driver_network(now: Snapshot, network: Network) -> driver.Network:
    """*network* as its driver gets it, without its endpoints on other nodes."""
    return driver.Network(
        name=network.name,
        link=now.links[network.name],
        driver=network.driver,
        subnets=tuple(driver.Subnet(s.cidr, gateway(network, s)) for s in network.subnets),
        internal=network.internal,
        options=dict(network.options),
        vni=network.vni,
        vxlan_port=network.vxlan_port,
        underlay=now.manifest.underlay,
        services=network.service_pools,
        own=tuple(a for h in network.hosts if h.name == now.manifest.node for a in (h.ipv4, h.ipv6) if a),
        balanced=bool(network.vips),
    )


def tunnel_device(now: Snapshot) -> driver.WireguardDevice | None:
    """The WireGuard device that the encrypted networks of this node need; None if it has none, or no other nodes."""
    manifest, keys = now.manifest, now.tunnel_keys
    if keys is None or not needs_tunnel(manifest, now.networks.values()):
        return None
    version = ipaddress.ip_address(manifest.underlay).version
    return driver.WireguardDevice(
        name=f"{now.prefix}wg",
        private_key=keys.private,
        address=wireguard.address_of(keys.public),
        port=wireguard.PORT,
        mtu=now.host.mtu - wireguard.OVERHEAD[version],
        peers=frozenset(
            driver.WireguardPeer(key=t.key, endpoint=t.underlay, port=wireguard.PORT, address=wireguard.address_of(t.key))
            for t in manifest.tunnels
        ),
    )


def needs_tunnel(manifest: Manifest, networks: Iterable[Network]) -> bool:
    """Whether a node with these *networks* has encrypted ones, and other nodes to reach."""
    return bool(manifest.underlay) and any(n.encrypted for n in networks)


def _remote_endpoints(now: Snapshot) -> dict[str, list[driver.RemoteEndpoint]]:
    """By network, the endpoints on other nodes."""
    inside = {t.underlay: wireguard.address_of(t.key) for t in now.manifest.tunnels}
    remotes: dict[str, list[driver.RemoteEndpoint]] = {}
    for peer in now.manifest.remote_endpoints:
        # an endpoint whose node is not in the tunnel yet is not reached in the clear either
        secret = peer.network in now.networks and now.networks[peer.network].encrypted
        underlay = inside.get(peer.underlay, "") if secret else peer.underlay
        remotes.setdefault(peer.network, []).append(
            driver.RemoteEndpoint(underlay=underlay, ipv4=peer.ipv4, ipv6=peer.ipv6, mac=peer.mac)
        )
    return remotes


def _kernel_state(
    now: Snapshot, tunnel: driver.WireguardDevice | None
) -> tuple[frozenset[driver.KernelObject], frozenset[driver.FdbEntry], tuple[driver.FirewallPolicy, ...]]:
    endpoints: dict[str, list[driver.Endpoint]] = {name: [] for name in now.networks}
    for view in now.views.values():
        for endpoint in view.endpoints:
            endpoints.setdefault(endpoint.network, []).append(endpoint)
    remotes = _remote_endpoints(now)
    objects: set[driver.KernelObject] = set()
    fdb: set[driver.FdbEntry] = set()
    policies: list[driver.FirewallPolicy] = []
    for network in now.networks.values():
        here = endpoints[network.name]
        spec = msgspec.structs.replace(driver_network(now, network), remotes=tuple(remotes.get(network.name, ())))
        if network.encrypted:
            spec = msgspec.structs.replace(spec, tunnel=tunnel, underlay=tunnel.address if tunnel else "")
        plugin = now.drivers.get(network.driver)
        missing = plugin.missing(spec, now.host) if plugin else (f"driver {network.driver!r} is not known on this node",)
        if plugin is None or missing:
            if here:
                raise AgentError(f"network {network.name}: {'; '.join(missing)}")
            continue
        state = plugin.desired_state(spec, here, now.host)
        objects |= state.objects
        fdb |= state.fdb
        if state.firewall:
            policies.append(state.firewall)
    return frozenset(objects), frozenset(fdb), tuple(policies)


def port_mappings(now: Snapshot) -> list[driver.PortMapping]:
    """The published ports that lead to one container each."""
    out: dict[tuple[str, int, str], driver.PortMapping] = {}
    services = ports.of_services(now.manifest.service_addresses)
    for record in sorted((r for r in now.records if r.ports), key=lambda r: (len(r.name), r.name)):
        # a container on a LAN is reached there, by its own address
        behind = [e for e in record.endpoints if not now.networks[e.network].on_lan]
        endpoint = next((e for e in behind if e.default), next(iter(behind), None))
        if endpoint is None or now.networks[endpoint.network].internal:
            continue
        for port in ports.own(record, services):
            # of two replicas the later one is on its way out
            out.setdefault(
                (port.host_ip, port.published, port.protocol),
                driver.PortMapping(
                    endpoint=record.id,
                    host_ip=port.host_ip,
                    port=port.published,
                    protocol=port.protocol,
                    ipv4=endpoint.ipv4,
                    ipv6=endpoint.ipv6,
                    target=port.target,
                ),
            )
    return list(out.values())


def local_addresses(now: Snapshot) -> set[str]:
    """Addresses of this node's own endpoints on networks where services are balanced."""
    shared = {n.name for n in now.networks.values() if n.driver == "overlay"}
    shared |= {v.network for v in now.manifest.service_addresses}
    return {a for r in now.records for e in r.endpoints if e.network in shared for a in (e.ipv4, e.ipv6) if a}


def load_balancers(services: Iterable[ServiceAddress], near: set[str]) -> list[driver.LoadBalancer]:
    """Services' addresses, and ports that any node answers: local tasks (*near*) first, so that they see their clients, unless
    the service is balanced over all nodes."""
    out: list[driver.LoadBalancer] = []
    for service in services:
        out += nftables.vip_backends(service)
        if service.ports:
            own = () if service.balanced else service.backends
            here = frozenset(a for b in own for a in (b.ipv4, b.ipv6) if a in near)
            out += nftables.port_backends(service, here)
    return out


def cluster_nodes(now: Snapshot, tunnel: driver.WireguardDevice | None) -> driver.Nodes:
    """The cluster's nodes as the firewall must know them."""
    manifest = now.manifest
    wide = manifest.underlay and any(n.driver == "overlay" for n in now.networks.values())
    inside = {wireguard.address_of(t.key) for t in manifest.tunnels}
    own = {n.vxlan_port for n in now.networks.values() if n.driver == "overlay"}
    return driver.Nodes(
        peers=frozenset(p.underlay for p in manifest.remote_endpoints if p.underlay) if wide else None,
        vxlan_ports=frozenset(own.union(*(n.vxlan_ports for n in manifest.nodes)) or {driver.VXLAN_PORT}),
        tunnel=tunnel,
        addresses=frozenset(a for n in manifest.nodes for a in n.addresses) | inside,
        doors=frozenset(
            (address, p.protocol, p.port)
            for n in manifest.nodes
            for p in n.ports
            for address in (n.addresses if p.host_ip in ("", *WILDCARDS) else (p.host_ip,))
        ),
        opened=now.opened,
    )


def dataplane_state(now: Snapshot, published: Iterable[driver.PortMapping]) -> DataplaneState:
    """The state of the data path: names for containers, and sockets of published ports."""
    return DataplaneState(
        views={ident: view.view for ident, view in now.views.items() if view.view},
        names=_names(now),
        forwards=tuple(_forwards(now.manifest.service_addresses, published)),
    )


def _names(now: Snapshot) -> dict[str, dict[str, tuple[str, ...]]]:
    """The addresses by network and name; the name of a service with an address of its own leads to that only."""
    names: dict[str, dict[str, list[str]]] = {}
    for view in now.views.values():
        for network, name, addresses in view.names:
            names.setdefault(network, {}).setdefault(name, []).extend(addresses)
    for peer in now.manifest.remote_endpoints:
        table = names.setdefault(peer.network, {})
        for name in peer.names:
            table.setdefault(name, []).extend(a for a in (peer.ipv4, peer.ipv6) if a)
    for service in now.manifest.service_addresses:
        table = names.setdefault(service.network, {})
        for name in service.names:
            table[name] = [a for a in (service.ipv4, service.ipv6) if a]
    return {network: {n: tuple(a) for n, a in table.items()} for network, table in names.items()}


def _forwards(services: Iterable[ServiceAddress], published: Iterable[driver.PortMapping]) -> Iterable[Forward]:
    for service in services:
        targets = tuple(b.ipv4 or b.ipv6 for b in service.backends)
        for p in service.ports:
            if p.protocol in ("tcp", "udp"):
                for host in WILDCARDS:
                    yield Forward(protocol=p.protocol, host=host, port=p.published, targets=targets, target_port=p.target)
    for mapping in published:
        if mapping.protocol in ("tcp", "udp"):
            for host in (mapping.host_ip,) if mapping.host_ip else WILDCARDS:
                yield Forward(
                    protocol=mapping.protocol,
                    host=host,
                    port=mapping.port,
                    targets=(mapping.ipv4 or mapping.ipv6,),
                    target_port=mapping.target,
                )


def forwarded_ports(published: Iterable[driver.PortMapping], services: Iterable[ServiceAddress]) -> set[ForwardedPort]:
    """Ports of the host that lead to containers and services of a rootless node. Raises ConflictError if two need the same
    port, or slirp4netns cannot forward one."""
    wanted = [(p.protocol, p.host_ip or "0.0.0.0", p.port) for p in published]
    wanted += [(p.protocol, "0.0.0.0", p.published) for v in services for p in v.ports]
    seen: set[tuple[str, int]] = set()
    for protocol, host, port in wanted:
        if protocol == "sctp" or ":" in host:
            raise ConflictError(f"port {port} ({protocol}) of {host} cannot be published without root: TCP and UDP on IPv4 can")
        if (protocol, port) in seen:
            raise ConflictError(f"port {port} ({protocol}) is published at two addresses: without root, a port has one use")
        seen.add((protocol, port))
    return set(wanted)
