"""One nftables table for each node, rendered from desired state and changed in one transaction.

Never iptables and never anybody else's rules. Published ports are map look-ups, so that their number costs nothing on
the data path. Source: nft(8); the reply path of a hairpin must cross conntrack, hence its masquerade.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import subprocess
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from netplugins import netns
from netplugins.driver import Balanced, Isolation, Published, Tunnel
from netplugins.errors import NetworkError

VXLAN_PORT = 4789


class Ruleset(msgspec.Struct, frozen=True):
    """A table in two parts: *skeleton*, its text with a `@NAME@` where the elements of each map and set go, and those
    *elements*. As long as the skeleton stays, a change costs what changed: elements come in parts, one a service, which are the
    very same objects as before where nothing changed."""

    table: str
    skeleton: str
    elements: dict[str, tuple[frozenset[str], ...]]

    def whole(self, revision: int) -> str:
        """The nft script that makes the table so, whatever it was before."""
        out = self.skeleton.replace("@@REVISION@@", str(revision))
        for name, parts in self.elements.items():
            items = frozenset().union(*parts)
            out = out.replace(f"@@{name}@@", f" elements = {{ {', '.join(sorted(items))} }};" if items else "")
        return out

    def changes(self, before: Ruleset) -> str | None:
        """The nft script that leads here from *before*; None where only the whole will do."""
        if before.skeleton != self.skeleton:
            return None
        out = []
        for name, parts in self.elements.items():
            old, items = _differing(before.elements[name], parts)
            for verb, some in (("delete", old - items), ("add", items - old)):
                if some:
                    out.append(f"{verb} element inet {self.table} {name} {{ {', '.join(sorted(some))} }}\n")
        return "".join(out)


Parts = tuple[frozenset[str], ...]


def _differing(before: Parts, now: Parts) -> tuple[frozenset[str], frozenset[str]]:
    """The elements of those parts that are not in both."""
    ours, theirs = set(map(id, now)), set(map(id, before))
    return (frozenset().union(*(p for p in before if id(p) not in ours)),
            frozenset().union(*(p for p in now if id(p) not in theirs)))


class _Script:
    """Lines of a table, and the elements that are kept beside them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.elements: dict[str, Parts] = {}

    def declare(self, kind: str, name: str, type_: str, items: Iterable[str]) -> None:
        self.declare_parts(kind, name, type_, (frozenset(items),))

    def declare_parts(self, kind: str, name: str, type_: str, parts: Parts) -> None:
        self.lines.append(f"  {kind} {name} {{ {type_};@@{name}@@ }}")
        self.elements[name] = parts


def _maps(published: Sequence[Published], protocol: str, version: int) -> tuple[list[str], list[str]]:
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


@lru_cache(1 << 14)
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


@lru_cache(1 << 14)
def _of_address(one: Balanced, count: int) -> frozenset[str]:
    return frozenset(f"{one.address} . {n} : {to}" for n, to in enumerate(buckets(one.backends, count)))


@lru_cache(1 << 14)
def _of_ports(one: Balanced, count: int, protocol: str) -> frozenset[str]:
    return frozenset(
        f"{port} . {n} : {to} . {target}" for port, kind, target in one.ports if kind == protocol
        for n, to in enumerate(buckets(one.backends, count))
    )


def _balancing(script: _Script, balanced: Sequence[Balanced]) -> tuple[list[str], list[str]]:
    """Declares the maps; returns (rules for services' addresses, rules for published ports).

    Flat maps of buckets: a change costs its own elements, where a chain for each service would cost all of them."""
    addressed: list[str] = []
    ported: list[str] = []
    kinds: dict[tuple[int, int], list[Balanced]] = {}
    for one in balanced:
        kinds.setdefault((one.version, LARGE if len(one.backends) > SMALL // 2 else SMALL), []).append(one)
    for (version, count), mine in sorted(kinds.items()):
        family = "ip" if version == 4 else "ip6"
        number = f"numgen random mod {count}"
        if parts := tuple(_of_address(b, count) for b in mine if b.address):
            name = f"service{version}_{count}"
            script.declare_parts("map", name, f"typeof {family} daddr . {number} : {family} daddr", parts)
            addressed.append(f"    dnat {family} to {family} daddr . {number} map @{name}")
        with_ports = [b for b in mine if b.ports]
        for protocol in ("tcp", "udp", "sctp"):
            parts = tuple(p for b in with_ports if (p := _of_ports(b, count, protocol)))
            if parts:
                name = f"ingress_{protocol}{version}_{count}"
                key = f"{protocol} dport . {number} : {family} daddr . {protocol} dport"
                script.declare_parts("map", name, f"typeof {key}", parts)
                ported.append(f"    meta nfproto ipv{version} dnat {family} to {protocol} dport . {number} map @{name}")
    return addressed, ported


def render(
    table: str, networks: Sequence[Isolation], published: Sequence[Published],
    balanced: Sequence[Balanced] = (), local: Sequence[str] = (), peers: Sequence[str] = (), tunnel: Tunnel | None = None,
) -> Ruleset:
    """Table inet *table* for the given state.

    *local* are the addresses of this node's own endpoints on networks with several nodes, *peers* the other nodes, which
    alone may send VXLAN packets; to the address in the *tunnel* they come out of the tunnel alone."""
    script = _Script()
    out = script.lines
    out += [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    out.append('  comment "pystack revision @@REVISION@@";')
    jumps: list[str] = []
    for protocol in ("tcp", "udp", "sctp"):
        for version, kind, family in ((4, "ipv4_addr", "ip"), (6, "ipv6_addr", "ip6")):
            exact, anywhere = _maps(published, protocol, version)
            if exact:
                name = f"{protocol}{version}_exact"
                script.declare("map", name, f"type {kind} . inet_service : {kind} . inet_service", exact)
                jumps.append(f"    dnat {family} to {family} daddr . {protocol} dport map @{name}")
            if anywhere:
                name = f"{protocol}{version}_any"
                script.declare("map", name, f"type inet_service : {kind} . inet_service", anywhere)
                jumps.append(
                    f"    meta nfproto ipv{version} dnat {family} to {protocol} dport map @{name}"
                )
    addressed, ported = _balancing(script, balanced)
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        addresses = [a for a in local if (":" in a) == (version == 6)]
        selves = [f"{a} . {a}" for a in addresses]
        script.declare("set", f"local{version}", f"type {kind}", addresses)
        script.declare("set", f"self{version}", f"type {kind} . {kind}", selves)
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
                out.append(f'    {family} saddr != {cidr} oifname "{network.link}" ct status dnat '
                           f"{family} daddr != @local{version} snat {family} to {own}")
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
    out += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    for pool in sorted({p for n in networks for p in n.services}):
        # a service with nobody to serve: said at once, where silence would be a time-out
        out.append(f"    {'ip6' if ':' in pool else 'ip'} daddr {pool} reject")
    for network in networks:
        if network.internal:
            out.append(f'    iifname "{network.link}" oifname != "{network.link}" drop')
    if networks:
        out.append("    oifname vmap { " + ", ".join(f'"{n.link}" : jump to_{n.link}' for n in networks) + " }")
    out.append("  }")
    if peers:
        out += ["  chain input {", "    type filter hook input priority filter; policy accept;"]
        for version, family in ((4, "ip"), (6, "ip6")):
            known = ", ".join(sorted(p for p in peers if (":" in p) == (version == 6)))
            if tunnel and version == 6:
                out.append(f'    udp dport {VXLAN_PORT} ip6 daddr {tunnel.address} iifname != "{tunnel.name}" drop')
                out.append(f'    iifname "{tunnel.name}" udp dport {VXLAN_PORT} accept')
                out.append(f'    iifname "{tunnel.name}" meta l4proto != ipv6-icmp drop')
            if known:
                out.append(f"    udp dport {VXLAN_PORT} meta nfproto ipv{version} {family} saddr != {{ {known} }} drop")
        out.append("  }")
    out += ["}", ""]
    return Ruleset(table, "\n".join(out), script.elements)


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
        for name in sorted(should.keys() | is_there.keys()) if should.get(name) != is_there.get(name)
    ]


def _listed(table: str) -> dict[str, str] | None:
    """Each chain, map and set of *table* with what is in it; None where there is no such table."""
    command = ["nft", "-j", "list", "table", "inet", table]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        return None
    out: dict[str, list[str]] = {}
    for entry in json.loads(done.stdout)["nftables"]:
        for kind, body in entry.items():
            if kind in ("chain", "map", "set"):
                elements = sorted(_plain(e) for e in body.pop("elem", ()))
                out[f"{kind} {body['name']}"] = [_plain(body), *elements]
            elif kind == "rule":
                out.setdefault(f"chain {body['chain']}", []).append(_plain(body))
    return {name: "\n".join(lines) for name, lines in out.items()}


def _plain(item: Any) -> str:
    """*item* as text, without what differs from load to load: handles, and the order of hashed sets."""

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: sorted(map(_plain, v)) if k == "set" and isinstance(v, list) else strip(v)
                    for k, v in part.items() if k != "handle"}
        return [strip(p) for p in part] if isinstance(part, list) else part

    return json.dumps(strip(item), sort_keys=True)


def delete(table: str) -> None:
    apply(f"table inet {table}\ndelete table inet {table}\n")
