"""One nftables table for each node, rendered from desired state and changed in one transaction.

Never iptables and never anybody else's rules. Published ports are map look-ups, so that their number costs nothing on
the data path. Source: nft(8); the reply path of a hairpin must cross conntrack, hence its masquerade.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import is_not
from typing import Any

import msgspec

from netplugins import cache, guard, nft_elements
from netplugins.driver import VXLAN_PORT, FirewallPolicy, LoadBalancer, PortMapping, WireguardDevice
from netplugins.errors import NetworkError
from netplugins.linux import netlink, netns
from netplugins.nft_elements import PROTOCOLS, ElementType
from netplugins.script import Parts, Script

PORT = "meta l4proto . th dport"
REFUSE = ("    meta l4proto tcp reject with tcp reset", "    reject with icmpx admin-prohibited")
"""Said at once, where silence would be a time-out; the kernel limits how often it says the second."""
_FORGED = (f"    udp dport {VXLAN_PORT} drop",)
"""A container has nothing to say there, whatever is opened: such a packet would be a frame on any overlay."""
ECHO = ("    icmp type echo-request {verdict}", "    icmpv6 type echo-request {verdict}")
MAX_NETLINK_ELEMENTS = 2000
"""Elements that are changed over netlink: more do not fit a socket's buffer, and then nft's start is no matter."""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules know of the cluster's nodes. *peers*: the underlay addresses of those that may send VXLAN packets, None
    where this node has no overlay; to the address in the *tunnel* they come out of the tunnel alone.

    Of all *addresses* of all nodes containers reach the ports published there, *doors* (address, protocol, port), and what
    is *opened* to them (protocol, port) on every node."""

    peers: frozenset[str] | None = None
    tunnel: WireguardDevice | None = None
    addresses: frozenset[str] = frozenset()
    doors: frozenset[tuple[str, str, int]] = frozenset()
    opened: frozenset[tuple[str, int]] = frozenset()


class ElementChange(msgspec.Struct, frozen=True):
    """What goes out of one map or set, and then comes into it."""

    name: str
    out: frozenset[str]
    into: frozenset[str]


class Ruleset(msgspec.Struct, frozen=True):
    """A table in two parts: *skeleton*, its text with a `@NAME@` where the elements of each map and set go, and those
    *elements*. As long as the skeleton stays, a change costs what changed: elements come in parts, one a service, which are the
    very same objects as before where nothing changed."""

    table: str
    skeleton: str
    elements: dict[str, Parts]
    shapes: dict[str, ElementType]

    def whole(self, revision: int) -> str:
        """The nft script that makes the table so, whatever it was before."""
        out = self.skeleton.replace("@@REVISION@@", str(revision))
        for name, parts in self.elements.items():
            items = frozenset().union(*parts)
            out = out.replace(f"@@{name}@@", f" elements = {{ {', '.join(sorted(items))} }};" if items else "")
        return out

    def changes(self, before: Ruleset) -> list[ElementChange] | None:
        """What leads here from *before*; None where only the whole will do."""
        if before.skeleton != self.skeleton:
            return None
        out = []
        for name, parts in self.elements.items():
            if (was := before.elements[name]) is not parts:
                old, items = _differing(was, parts)
                if old != items:
                    out.append(ElementChange(name, old - items, items - old))
        return out

    def amend(self, changes: Sequence[ElementChange], sock: netlink.Socket) -> None:
        """Make *changes*, some, which lead here, in one transaction over *sock*, of NETLINK_NETFILTER. Raises NetworkError;
        nothing of it holds then."""
        if sum(len(c.out) + len(c.into) for c in changes) > MAX_NETLINK_ELEMENTS:
            return apply(
                "".join(
                    f"{verb} element {self.shapes[c.name].family} {self.table} {c.name} {{ {', '.join(sorted(some))} }}\n"
                    for c in changes
                    for verb, some in (("delete", c.out), ("add", c.into))
                    if some
                )
            )
        messages = [m for c in changes for m in nft_elements.delete(self.table, c.name, self.shapes[c.name], sorted(c.out))]
        messages += [m for c in changes for m in nft_elements.add(self.table, c.name, self.shapes[c.name], sorted(c.into))]
        sock.transact(messages)


def _differing(before: Parts, now: Parts) -> tuple[frozenset[str], frozenset[str]]:
    """The elements of those parts that are not in both."""
    if len(before) == len(now):  # nearly always: a service changed, in its place
        others = tuple(map(is_not, before, now))
        before, now = tuple(compress(before, others)), tuple(compress(now, others))
    ours, theirs = set(map(id, now)), set(map(id, before))
    return (
        frozenset().union(*(p for p in before if id(p) not in ours)),
        frozenset().union(*(p for p in now if id(p) not in theirs)),
    )


def _maps(published: Sequence[PortMapping], protocol: str, version: int) -> tuple[list[str], list[str]]:
    """Elements of the two maps of one protocol and family: by address and port, and by port alone."""
    exact: list[str] = []
    anywhere: list[str] = []
    for port in published:
        target = port.ipv4 if version == 4 else port.ipv6
        if port.protocol != protocol or not target:
            continue
        value = f"{target} . {port.target}"
        if port.host_ip in ("", "0.0.0.0", "::"):
            if port.host_ip == "" or (port.host_ip == "::") == (version == 6):
                anywhere.append(f"{port.port} : {value}")
        elif ipaddress.ip_address(port.host_ip).version == version:
            exact.append(f"{port.host_ip} . {port.port} : {value}")
    return exact, anywhere


SMALL, LARGE = 16, 256
"""Buckets of a service with up to eight backends, and of one with more."""


@lru_cache(None)
def buckets(backends: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Who serves each of *count* buckets, by rendezvous hashing: a backend that goes moves its own buckets alone.

    Where that leaves shares uneven, the fullest gives to the emptiest."""
    ordered = sorted(set(backends))[:count]
    if not ordered:
        return ()

    def weight(backend: str, bucket: int) -> bytes:
        return hashlib.blake2b(f"{backend} {bucket}".encode(), digest_size=8).digest()

    chosen = [max(ordered, key=lambda b: weight(b, n)) for n in range(count)]
    share: dict[str, list[int]] = {b: [n for n, c in enumerate(chosen) if c == b] for b in ordered}
    while True:
        low, high = min(ordered, key=lambda b: len(share[b])), max(ordered, key=lambda b: len(share[b]))
        if len(share[high]) - len(share[low]) < 2:
            return tuple(chosen)
        moved = share[high].pop()
        share[low].append(moved)
        chosen[moved] = low


class _Map(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A map from buckets to backends: of services' own addresses, or of published ports of one *protocol*."""

    version: int
    count: int
    protocol: str = ""

    @property
    def name(self) -> str:
        return f"{f'ingress_{self.protocol}' if self.protocol else 'service'}{self.version}_{self.count}"

    def rule(self) -> str:
        family, number = "ip" if self.version == 4 else "ip6", f"numgen random mod {self.count}"
        if self.protocol:
            return f"    meta nfproto ipv{self.version} dnat {family} to {self.protocol} dport . {number} map @{self.name}"
        return f"    dnat {family} to {family} daddr . {number} map @{self.name}"

    def declare(self, script: Script, parts: Parts) -> None:
        family, kind = ("ip", "ipv4_addr") if self.version == 4 else ("ip6", "ipv6_addr")
        shape, key, value = ElementType((kind, "integer"), (kind,)), f"{family} daddr", f"{family} daddr"
        if self.protocol:
            port = f"{self.protocol} dport"
            shape, key, value = ElementType(("inet_service", "integer"), (kind, "inet_service")), port, f"{value} . {port}"
        script.declare_parts("map", self.name, f"typeof {key} . numgen random mod {self.count} : {value}", shape, parts)


_map = lru_cache(_Map)
_known: dict[LoadBalancer, tuple[tuple[_Map, frozenset[str]], ...]] = {}
"""What was made of each service, as long as it stays as it is: all are asked for whenever one changes."""


def _elements(balanced: Sequence[LoadBalancer]) -> Iterator[tuple[_Map, frozenset[str]]]:
    """Of each service the elements of the maps that it is in."""
    found = list(map(_known.get, balanced))
    if None in found:
        cache.trim(buckets, len(balanced))
        if cache.is_mostly_stale(len(_known), len(balanced)):
            _known.clear()
        for number, one in enumerate(balanced):
            found[number] = found[number] or _known.setdefault(one, tuple(_elements_of(one)))
    return chain.from_iterable(filter(None, found))


def _elements_of(one: LoadBalancer) -> Iterator[tuple[_Map, frozenset[str]]]:
    count = LARGE if len(one.backends) > SMALL // 2 else SMALL
    to = tuple(enumerate(buckets(one.backends, count)))
    if one.address:
        yield _map(one.version, count), frozenset(f"{one.address} . {n} : {backend}" for n, backend in to)
    for protocol in dict.fromkeys(protocol for _, protocol, _ in one.ports):
        yield (
            _map(one.version, count, protocol),
            frozenset(
                f"{port} . {n} : {backend} . {target}"
                for port, kind, target in one.ports
                if kind == protocol
                for n, backend in to
            ),
        )


def _balancing(script: Script, balanced: Sequence[LoadBalancer]) -> tuple[list[str], list[str]]:
    """Declares the maps; returns (rules for services' addresses, rules for published ports).

    Flat maps of buckets: a change costs its own elements, where a chain for each service would cost all of them."""
    maps: defaultdict[_Map, list[frozenset[str]]] = defaultdict(list)
    for which, part in _elements(balanced):
        maps[which].append(part)
    for which, parts in sorted(maps.items(), key=lambda item: item[0]):
        which.declare(script, tuple(parts))
    rules = [(which.protocol, which.rule()) for which in sorted(maps)]
    return [rule for protocol, rule in rules if not protocol], [rule for protocol, rule in rules if protocol]


def render(
    table: str,
    networks: Sequence[FirewallPolicy],
    published: Sequence[PortMapping],
    balanced: Sequence[LoadBalancer] = (),
    local: Sequence[str] = (),
    nodes: Nodes = Nodes(),
) -> Ruleset:
    """Table inet *table* for the given state. *local* are the addresses of this node's own endpoints on networks with several
    nodes."""
    script = Script()
    out = script.lines
    out += [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    out.append('  comment "pystack revision @@REVISION@@";')
    jumps: list[str] = []
    for protocol in ("tcp", "udp", "sctp"):
        for version, kind, family in ((4, "ipv4_addr", "ip"), (6, "ipv6_addr", "ip6")):
            exact, anywhere = _maps(published, protocol, version)
            if exact:
                name = f"{protocol}{version}_exact"
                script.declare("map", name, ElementType((kind, "inet_service"), (kind, "inet_service")), exact)
                jumps.append(f"    dnat {family} to {family} daddr . {protocol} dport map @{name}")
            if anywhere:
                name = f"{protocol}{version}_any"
                script.declare("map", name, ElementType(("inet_service",), (kind, "inet_service")), anywhere)
                jumps.append(f"    meta nfproto ipv{version} dnat {family} to {protocol} dport map @{name}")
    addressed, ported = _balancing(script, balanced)
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        addresses = [a for a in local if (":" in a) == (version == 6)]
        selves = [f"{a} . {a}" for a in addresses]
        script.declare("set", f"local{version}", ElementType((kind,)), addresses)
        script.declare("set", f"self{version}", ElementType((kind, kind)), selves)
    out += ["  chain published {", *jumps, *ported, "  }"]
    out += [
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        *addressed,
        "    fib daddr type local jump published",
        "  }",
        "  chain output {",
        # loopback is served by the forwarder's bound socket: never route_localnet
        "    type nat hook output priority -100; policy accept;",
        "    ip daddr 127.0.0.0/8 return",
        "    ip6 daddr ::1 return",
        *addressed,
        "    fib daddr type local jump published",
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
    ]
    for network in networks:
        for cidr in network.subnets:
            family = "ip6" if ":" in cidr else "ip"
            version = 6 if family == "ip6" else 4
            pools = [p for p in network.services if (":" in p) == (version == 6)]
            if pools:
                # a service's address: the backend sees its client, but for a task that meets itself
                back = f'{family} saddr {cidr} oifname "{network.link}" ct status dnat ct original {family} daddr {pools[0]}'
                out.append(f"    {back} {family} saddr . {family} daddr @self{version} masquerade")
                out.append(f"    {back} accept")
            own = next((a for a in network.own if (":" in a) == (version == 6)), "")
            if own:
                # a connection from outside to a task elsewhere comes back to this node, which alone can undo it
                out.append(
                    f'    {family} saddr != {cidr} oifname "{network.link}" ct status dnat '
                    f"{family} daddr != @local{version} snat {family} to {own}"
                )
            # a container that reaches a neighbour by its published port must get the reply back through conntrack
            out.append(f'    {family} saddr {cidr} oifname "{network.link}" ct status dnat masquerade')
            if network.masquerade and not network.internal:
                out.append(f'    {family} saddr {cidr} oifname != "{network.link}" masquerade')
    out.append("  }")
    for network in networks:
        link = network.link
        out.append(f"  chain to_{link} {{")
        out.append("    ct state established,related accept")
        if not network.icc:
            out.append(f'    iifname "{link}" ct status != dnat drop')
        out.append(f'    iifname "{link}" accept')
        if not network.internal:
            out.append("    ct status dnat accept")
        out += ["    drop", "  }"]
    out += _closed(script, published, balanced, nodes) if networks else []
    out += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    bridges = "{ " + ", ".join(f'"{n.link}"' for n in networks) + " }"
    if networks and nodes.addresses:
        out.append(f"    iifname {bridges} oifname != {bridges} jump to_nodes")
    for pool in sorted({p for n in networks for p in n.services}):
        # a service with nobody to serve: said at once, where silence would be a time-out
        out.append(f"    {'ip6' if ':' in pool else 'ip'} daddr {pool} reject")
    for network in networks:
        if network.internal:
            out.append(f'    iifname "{network.link}" oifname != "{network.link}" drop')
    if networks:
        out.append("    oifname vmap { " + ", ".join(f'"{n.link}" : jump to_{n.link}' for n in networks) + " }")
    out.append("  }")
    if networks:
        if nodes.peers is not None:
            script.declare("set", "peers4", ElementType(("ipv4_addr",)), [p for p in nodes.peers if ":" not in p])
            script.declare("set", "peers6", ElementType(("ipv6_addr",)), [p for p in nodes.peers if ":" in p])
        out += ["  chain input {", "    type filter hook input priority filter; policy accept;"]
        out += _vxlan(nodes)
        out += [f"    iifname {bridges} jump from_containers", "  }"]
    out += ["}", ""]
    if guard.possible():
        guard.render(script, table, networks)
    return Ruleset(table, "\n".join(out), script.elements, script.shapes)


def _vxlan(nodes: Nodes) -> list[str]:
    """Rules of the input chain: who may send VXLAN packets."""
    out: list[str] = []
    if nodes.peers is None:
        return out
    if tunnel := nodes.tunnel:
        out += [
            f'    udp dport {VXLAN_PORT} ip6 daddr {tunnel.address} iifname != "{tunnel.name}" drop',
            f'    iifname "{tunnel.name}" udp dport {VXLAN_PORT} accept',
            f'    iifname "{tunnel.name}" meta l4proto != ipv6-icmp drop',
        ]
    return out + [f"    udp dport {VXLAN_PORT} {family} saddr != @peers{v} drop" for v, family in ((4, "ip"), (6, "ip6"))]


def _closed(script: Script, published: Sequence[PortMapping], balanced: Sequence[LoadBalancer], nodes: Nodes) -> list[str]:
    """Chains for what containers send to nodes: to this one (`from_containers`), and through it to others (`to_nodes`).

    The way to another node's published ports leads past here, so that they must be known; those of services with balanced
    ports are the same on all."""
    everywhere = {(protocol, port) for one in balanced for port, protocol, _ in one.ports} | nodes.opened
    # one that no rule translates is taken by the forwarder: an IPv6 client of a container that has IPv4 alone
    here = {(p.protocol, p.port) for p in published if p.host_ip in ("", "0.0.0.0", "::")}
    shape = ElementType(("inet_proto", "inet_service"))
    script.declare("set", "open_everywhere", shape, _ports(everywhere))
    script.declare("set", "open_here", shape, _ports(here))
    out = [
        "  chain from_containers {",
        *_FORGED,
        "    ct state established,related accept",
        f"    {PORT} @open_everywhere accept",
        f"    {PORT} @open_here accept",
        *(line.format(verdict="accept") for line in ECHO),
        "    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
        *REFUSE,
        "  }",
    ]
    if not nodes.addresses:
        return out
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        mine = [a for a in nodes.addresses if (":" in a) == (version == 6)]
        doors = [f"{a} . {protocol} . {port}" for a, protocol, port in nodes.doors if (":" in a) == (version == 6)]
        script.declare("set", f"nodes{version}", ElementType((kind,)), mine)
        script.declare("set", f"doors{version}", ElementType((kind, "inet_proto", "inet_service")), doors)
    return [
        *out,
        "  chain to_node {",
        *_FORGED,
        "    ct state established,related return",
        f"    {PORT} @open_everywhere return",
        f"    ip daddr . {PORT} @doors4 return",
        f"    ip6 daddr . {PORT} @doors6 return",
        *(line.format(verdict="return") for line in ECHO),
        *REFUSE,
        "  }",
        "  chain to_nodes {",
        "    ip daddr @nodes4 jump to_node",
        "    ip6 daddr @nodes6 jump to_node",
        "  }",
    ]


def _ports(ports: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{protocol} . {port}" for protocol, port in ports if protocol in PROTOCOLS]


def apply(script: str) -> None:
    """Load *script* in one transaction; on failure nothing of it holds."""
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NetworkError(f"nftables refused the ruleset: {done.stderr.strip().splitlines()[0]}")


def differences(wanted: Ruleset) -> list[str]:
    """What of *wanted* the kernel does not have, or has otherwise; empty where its table is the same.

    The text that nft prints is not the text that it was given. So *wanted* is loaded into a namespace of its own, and
    both tables are asked for in the same words."""
    is_there = _listed(wanted.table)
    if is_there is None:
        return [f"table inet {wanted.table} is not there"]

    def expected() -> dict[str, str] | None:
        apply(wanted.whole(0))
        return _listed(wanted.table)

    should = netns.isolated(expected) or {}
    return [
        f"{name} {'is not there' if name not in is_there else 'is not ours' if name not in should else 'differs'}"
        for name in sorted(should.keys() | is_there.keys())
        if should.get(name) != is_there.get(name)
    ]


def _listed(table: str) -> dict[str, str] | None:
    """Each chain, map and set of *table* with what is in it; None where there is no such table."""
    command = ["nft", "-j", "list", "table", "inet", table]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        return None
    listed = json.loads(done.stdout)["nftables"]
    command[command.index("inet")] = "bridge"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    listed += json.loads(done.stdout)["nftables"] if done.returncode == 0 else []  # there is one where anybody is guarded
    out: dict[str, list[str]] = {}
    for entry in listed:
        for kind, body in entry.items():
            where = "bridge " if body.get("family") == "bridge" else ""
            if kind in ("chain", "map", "set"):
                elements = sorted(_plain(e) for e in body.pop("elem", ()))
                out[f"{where}{kind} {body['name']}"] = [_plain(body), *elements]
            elif kind == "rule":
                out.setdefault(f"{where}chain {body['chain']}", []).append(_plain(body))
    return {name: "\n".join(lines) for name, lines in out.items()}


def _plain(item: Any) -> str:
    """*item* as text, without what differs from load to load: handles, and the order of hashed sets."""

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                k: sorted(map(_plain, v)) if k == "set" and isinstance(v, list) else strip(v)
                for k, v in part.items()
                if k != "handle"
            }
        return [strip(p) for p in part] if isinstance(part, list) else part

    return json.dumps(strip(item), sort_keys=True)


def delete(table: str) -> None:
    families = ("inet", "bridge") if guard.possible() else ("inet",)
    apply("".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in families))
