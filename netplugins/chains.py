"""The chains of the node's table, each with the maps and sets that it uses. Pure.

Published ports are map look-ups, so that their number costs nothing on the data path. The reply path of a hairpin must
cross conntrack, hence its masquerade. Source: nft(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from netplugins.driver import VXLAN_PORT, FirewallPolicy, LoadBalancer, Nodes, PortMapping
from netplugins.nft_elements import PROTOCOLS, ElementType
from netplugins.script import Script

FAMILIES = ((4, "ipv4_addr", "ip"), (6, "ipv6_addr", "ip6"))
"""Version of IP, the type of its addresses, and its name in rules."""
PORT = "meta l4proto . th dport"
REFUSE = ("meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited")
"""An answer at once, where silence would be a time-out; the kernel limits the rate of the second."""


def _vxlan_dport(ports: Iterable[int]) -> str:
    found = [str(port) for port in sorted(ports)]
    return f"udp dport {found[0]}" if len(found) == 1 else f"udp dport {{ {', '.join(found)} }}"


def _forged(nodes: Nodes) -> str:
    """No container sends VXLAN, even if the port is opened: such a packet would be a frame on any overlay, of other programs
    at the usual port too."""
    return f"{_vxlan_dport(nodes.vxlan_ports | {VXLAN_PORT})} drop"


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _of(version: int, addresses: Iterable[str]) -> list[str]:
    return [a for a in addresses if _version(a) == version]


def declare_published(script: Script, published: Sequence[PortMapping]) -> list[str]:
    """Add the maps of published ports, two a protocol and family: by address and port, and by port. Returns their rules."""
    rules = []
    for protocol in PROTOCOLS:
        for version, kind, family in FAMILIES:
            exact, anywhere = _mappings(published, protocol, version)
            if exact:
                name = f"{protocol}{version}_exact"
                script.declare("map", name, ElementType((kind, "inet_service"), (kind, "inet_service")), exact)
                rules.append(f"dnat {family} to {family} daddr . {protocol} dport map @{name}")
            if anywhere:
                name = f"{protocol}{version}_any"
                script.declare("map", name, ElementType(("inet_service",), (kind, "inet_service")), anywhere)
                rules.append(f"meta nfproto ipv{version} dnat {family} to {protocol} dport map @{name}")
    return rules


def _mappings(published: Sequence[PortMapping], protocol: str, version: int) -> tuple[list[str], list[str]]:
    """Elements of the two maps of one protocol and family: by address and port, and by port."""
    exact: list[str] = []
    anywhere: list[str] = []
    for port in published:
        target = port.ipv4 if version == 4 else port.ipv6
        if port.protocol != protocol or not target:
            continue
        value = f"{target} . {port.target}"
        if port.host_ip in ("", "0.0.0.0", "::"):
            if port.host_ip == "" or _version(port.host_ip) == version:
                anywhere.append(f"{port.port} : {value}")
        elif ipaddress.ip_address(port.host_ip).version == version:
            exact.append(f"{port.host_ip} . {port.port} : {value}")
    return exact, anywhere


def declare_local(script: Script, local: Sequence[str]) -> None:
    """Add the sets of this node's own endpoints: their addresses, and each address with itself."""
    for version, kind, _ in FAMILIES:
        addresses = _of(version, local)
        script.declare("set", f"local{version}", ElementType((kind,)), addresses)
        script.declare("set", f"self{version}", ElementType((kind, kind)), [f"{a} . {a}" for a in addresses])


def add_destination_nat(script: Script, services: Sequence[str], published: Sequence[str]) -> None:
    """Add the chains that translate the destination, with the rules of services' addresses and of *published* ports."""
    translate = [*services, "fib daddr type local jump published"]
    script.chain("published", published)
    script.chain("prerouting", ["type nat hook prerouting priority dstnat; policy accept;", *translate])
    # the forwarder's bound sockets serve loopback: never route_localnet
    own = ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return"]
    script.chain("output", ["type nat hook output priority -100; policy accept;", *own, *translate])


def add_source_nat(script: Script, networks: Sequence[FirewallPolicy]) -> None:
    """Add the chain that translates the source."""
    rules = (rule for network in networks for cidr in network.subnets for rule in _source_nat(network, cidr))
    script.chain("postrouting", ["type nat hook postrouting priority srcnat; policy accept;", *rules])


def _source_nat(network: FirewallPolicy, cidr: str) -> Iterator[str]:
    """Rules for one subnet."""
    version, _, family = FAMILIES[_version(cidr) == 6]
    inside, out = f"{family} saddr {cidr}", f'oifname "{network.link}"'
    if pools := _of(version, network.services):
        # by a service's address: the backend sees its client, except a task that reaches itself
        balanced = f"{inside} {out} ct status dnat ct original {family} daddr {pools[0]}"
        yield f"{balanced} {family} saddr . {family} daddr @self{version} masquerade"
        yield f"{balanced} accept"
    if own := _of(version, network.own):
        # a connection from outside to a task on another node must come back to this node, which can undo the translation
        yield f"{family} saddr != {cidr} {out} ct status dnat {family} daddr != @local{version} snat {family} to {own[0]}"
    # a container that reaches a neighbour by its published port must get the reply back through conntrack
    yield f"{inside} {out} ct status dnat masquerade"
    if network.masquerade and not network.internal:
        yield f'{inside} oifname != "{network.link}" masquerade'


def add_network(script: Script, network: FirewallPolicy) -> None:
    """Add the chain that decides what is forwarded to the network."""
    link = network.link
    rules = ["ct state established,related accept"]
    if not network.icc:
        rules.append(f'iifname "{link}" ct status != dnat drop')
    rules.append(f'iifname "{link}" accept')
    if not network.internal:
        rules.append("ct status dnat accept")
    script.chain(f"to_{link}", [*rules, "drop"])


def add_node_access(script: Script, published: Sequence[PortMapping], balanced: Sequence[LoadBalancer], nodes: Nodes) -> None:
    """Add the chains for what containers send to nodes: to this one (`from_containers`), and through it to others
    (`to_nodes`).

    Packets to other nodes' published ports pass here, so those are listed; those of services with balanced ports are the
    same on all nodes."""
    everywhere = {(protocol, port) for one in balanced for port, protocol, _ in one.ports} | nodes.opened
    # the forwarder takes one that no rule translates: from an IPv6 client to a container that has only IPv4
    here = {(p.protocol, p.port) for p in published if p.host_ip in ("", "0.0.0.0", "::")}
    shape = ElementType(("inet_proto", "inet_service"))
    script.declare("set", "open_everywhere", shape, _ports(everywhere))
    script.declare("set", "open_here", shape, _ports(here))
    allowed = [f"{PORT} @open_everywhere accept", f"{PORT} @open_here accept"]
    discovery = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    established = "ct state established,related"
    script.chain("from_containers", [_forged(nodes), f"{established} accept", *allowed, *_echo("accept"), discovery, *REFUSE])
    if not nodes.addresses:
        return
    for version, kind, _ in FAMILIES:
        doors = [f"{a} . {protocol} . {port}" for a, protocol, port in nodes.doors if _version(a) == version]
        script.declare("set", f"nodes{version}", ElementType((kind,)), _of(version, nodes.addresses))
        script.declare("set", f"doors{version}", ElementType((kind, "inet_proto", "inet_service")), doors)
    open_ = [f"{PORT} @open_everywhere return", *(f"{f} daddr . {PORT} @doors{v} return" for v, _, f in FAMILIES)]
    script.chain("to_node", [_forged(nodes), f"{established} return", *open_, *_echo("return"), *REFUSE])
    script.chain("to_nodes", [f"{family} daddr @nodes{version} jump to_node" for version, _, family in FAMILIES])


def _echo(verdict: str) -> tuple[str, str]:
    return f"icmp type echo-request {verdict}", f"icmpv6 type echo-request {verdict}"


def _ports(ports: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{protocol} . {port}" for protocol, port in ports if protocol in PROTOCOLS]


def _links(networks: Sequence[FirewallPolicy]) -> str:
    return "{ " + ", ".join(f'"{n.link}"' for n in networks) + " }"


def add_forward(script: Script, networks: Sequence[FirewallPolicy], nodes: Nodes) -> None:
    """Add the chain of what the host forwards."""
    rules = ["type filter hook forward priority filter; policy accept;"]
    if networks and nodes.addresses:
        rules.append(f"iifname {_links(networks)} oifname != {_links(networks)} jump to_nodes")
    # a service without backends: an answer at once, where silence would be a time-out
    pools = sorted({p for n in networks for p in n.services})
    rules += [f"{'ip6' if ':' in pool else 'ip'} daddr {pool} reject" for pool in pools]
    rules += [f'iifname "{n.link}" oifname != "{n.link}" drop' for n in networks if n.internal]
    if networks:
        rules.append("oifname vmap { " + ", ".join(f'"{n.link}" : jump to_{n.link}' for n in networks) + " }")
    script.chain("forward", rules)


def add_input(script: Script, networks: Sequence[FirewallPolicy], nodes: Nodes) -> None:
    """Add the chain of what this node takes: VXLAN packets from its peers, and what `from_containers` lets in."""
    if nodes.peers is not None:
        for version, kind, _ in FAMILIES:
            script.declare("set", f"peers{version}", ElementType((kind,)), _of(version, nodes.peers))
    guarded = f"iifname {_links(networks)} jump from_containers"
    script.chain("input", ["type filter hook input priority filter; policy accept;", *_vxlan(nodes), guarded])


def _vxlan(nodes: Nodes) -> Iterator[str]:
    """Rules of the input chain: who may send VXLAN packets."""
    if nodes.peers is None:
        return
    port = _vxlan_dport(nodes.vxlan_ports)
    if tunnel := nodes.tunnel:
        yield f'{port} ip6 daddr {tunnel.address} iifname != "{tunnel.name}" drop'
        yield f'iifname "{tunnel.name}" {port} accept'
        yield f'iifname "{tunnel.name}" meta l4proto != ipv6-icmp drop'
    for version, _, family in FAMILIES:
        yield f"{port} {family} saddr != @peers{version} drop"
