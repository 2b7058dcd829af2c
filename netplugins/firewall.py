"""One nftables table for each node, rendered from desired state and replaced in one transaction.

Never iptables and never anybody else's rules. Published ports are map look-ups, so that their number costs nothing on
the data path. Source: nft(8); the reply path of a hairpin must cross conntrack, hence its masquerade.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterable, Sequence

from netplugins.driver import Isolation, Published
from netplugins.errors import NetworkError


def _elements(items: Iterable[str]) -> str:
    joined = ", ".join(sorted(set(items)))
    return f" elements = {{ {joined} }};" if joined else ""


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


def render(table: str, revision: int, networks: Sequence[Isolation], published: Sequence[Published]) -> str:
    """The nft script that makes table inet *table* equal to the given state, whatever it was before."""
    out = [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    out.append(f'  comment "pystack revision {revision}";')
    jumps: list[str] = []
    for protocol in ("tcp", "udp", "sctp"):
        for version, kind, family in ((4, "ipv4_addr", "ip"), (6, "ipv6_addr", "ip6")):
            exact, anywhere = _maps(published, protocol, version)
            if exact:
                name = f"{protocol}{version}_exact"
                out.append(
                    f"  map {name} {{ type {kind} . inet_service : {kind} . inet_service;{_elements(exact)} }}"
                )
                jumps.append(f"    dnat {family} to {family} daddr . {protocol} dport map @{name}")
            if anywhere:
                name = f"{protocol}{version}_any"
                out.append(f"  map {name} {{ type inet_service : {kind} . inet_service;{_elements(anywhere)} }}")
                jumps.append(
                    f"    meta nfproto ipv{version} dnat {family} to {protocol} dport map @{name}"
                )
    out += ["  chain published {", *jumps, "  }"]
    out += [
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        "    fib daddr type local jump published",
        "  }",
        "  chain output {",
        # loopback is served by the forwarder's bound socket: never route_localnet
        "    type nat hook output priority -100; policy accept;",
        "    ip daddr 127.0.0.0/8 return",
        "    ip6 daddr ::1 return",
        "    fib daddr type local jump published",
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
    ]
    for network in networks:
        for cidr in network.subnets:
            family = "ip6" if ":" in cidr else "ip"
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
    for network in networks:
        if network.internal:
            out.append(f'    iifname "{network.link}" oifname != "{network.link}" drop')
    if networks:
        out.append("    oifname vmap { " + ", ".join(f'"{n.link}" : jump to_{n.link}' for n in networks) + " }")
    out += ["  }", "}", ""]
    return "\n".join(out)


def apply(script: str) -> None:
    """Load *script* in one transaction; on failure nothing of it holds."""
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NetworkError(f"nftables refused the ruleset: {done.stderr.strip().splitlines()[0]}")


def delete(table: str) -> None:
    apply(f"table inet {table}\ndelete table inet {table}\n")
