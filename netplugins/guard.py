"""Anti-spoofing: a container sends on a bridge from its own MAC and IP addresses, and claims no others by ARP or ND.

The rules are of the bridge family, which sees frames before the bridge learns from them. They know a veth by its name; no
look-up depends on their number. No container may send router advertisements or redirects.
Source: RFC 826, RFC 4861 §4, RFC 4291 appendix A.
"""

from __future__ import annotations

import functools
import ipaddress
import subprocess
from collections.abc import Sequence

from netplugins import cache
from netplugins.driver import FirewallPolicy, Veth
from netplugins.linux import netns
from netplugins.linux.netlink import mac_bytes
from netplugins.nft_elements import ElementType
from netplugins.script import Script

TARGET = "@th,64,128"
"""The target address of a neighbour solicitation or advertisement."""
SETS = {
    "senders": ("type ifname", ("ifname",)),
    "sender_macs": ("type ifname . ether_addr", ("ifname", "ether_addr")),
    "sender_ipv4": ("type ifname . ipv4_addr", ("ifname", "ipv4_addr")),
    "sender_ipv6": ("type ifname . ipv6_addr", ("ifname", "ipv6_addr")),
    "sender_targets": (f"typeof iifname . {TARGET}", ("ifname", "bytes16")),
}
CHAINS = f"""\
  chain sender {{
    iifname . ether saddr != @sender_macs drop
    ether type vmap {{ ip : goto sender4, ip6 : goto sender6, arp : goto sender_arp }}
    drop
  }}
  chain sender4 {{
    iifname . ip saddr @sender_ipv4 accept
    drop
  }}
  chain sender6 {{
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    icmpv6 type nd-neighbor-advert iifname . {TARGET} != @sender_targets drop
    iifname . ip6 saddr @sender_ipv6 accept
    ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . {TARGET} @sender_targets accept
    ip6 saddr :: icmpv6 type mld2-listener-report accept
    drop
  }}
  chain sender_arp {{
    iifname . arp saddr ether != @sender_macs drop
    iifname . arp saddr ip @sender_ipv4 accept
    arp operation request arp saddr ip 0.0.0.0 accept
    drop
  }}"""


@functools.cache
def possible() -> bool:
    """Whether the kernel has nftables for bridges (CONFIG_NF_TABLES_BRIDGE)."""
    return netns.isolated(
        lambda: (
            subprocess.run(["nft", "add", "table", "bridge", "probe"], capture_output=True, timeout=30, check=False).returncode
            == 0
        )
    )


def render(script: Script, table: str, networks: Sequence[FirewallPolicy]) -> None:
    """Add table bridge *table* for those of *networks* with `senders`; without any, the table is deleted."""
    script.lines += [f"table bridge {table}", f"delete table bridge {table}"]
    guarded = [n for n in networks if n.senders is not None]
    if not guarded:
        return
    senders = sorted((veth for n in guarded for veth in n.senders or ()), key=lambda veth: veth.name)
    cache.trim(_elements, len(senders))
    parts = [_elements(veth) for veth in senders]
    script.lines.append(f"table bridge {table} {{")
    for number, (name, (type_, kinds)) in enumerate(SETS.items()):
        script.declare_parts("set", name, type_, ElementType(kinds, family="bridge"), tuple(p[number] for p in parts))
    script.lines += [
        CHAINS,
        "  chain prerouting {",
        "    type filter hook prerouting priority -300; policy accept;",
        "    iifname @senders jump sender",
        "  }",
        "}",
        "",
    ]


@functools.lru_cache(None)
def _elements(veth: Veth) -> tuple[frozenset[str], ...]:
    """The elements of *veth* in each of SETS; the same objects while it stays as it is."""
    addresses = [a.split("/")[0] for a in veth.addresses]
    ipv6 = [a for a in addresses if ":" in a]
    if ipv6:
        ipv6.append(link_local(veth.mac))
    numbers = [f"0x{int(ipaddress.IPv6Address(a)):032x}" for a in ipv6]
    wanted = [veth.mac], [a for a in addresses if ":" not in a], ipv6, numbers
    own = (frozenset(f'"{veth.name}" . {value}' for value in values) for values in wanted)
    return frozenset({f'"{veth.name}"'}), *own


def link_local(mac: str) -> str:
    """The link-local address that the kernel derives from *mac* (EUI-64)."""
    raw = mac_bytes(mac)
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))
