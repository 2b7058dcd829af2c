"""The bridge driver: a Linux bridge for each network, a veth pair for each endpoint, NAT to the outside."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import socket
from collections.abc import Sequence

from netplugins import cache
from netplugins.driver import (
    Bridge,
    Endpoint,
    FirewallPolicy,
    HostCapabilities,
    KernelObject,
    Network,
    NetworkState,
    Shaper,
    Subnet,
    Veth,
)

OPTION = "com.docker.network."
OFF = ("0", "f", "F", "false", "False", "FALSE")
"""How clients of Docker's write false. Source: Go, strconv.ParseBool."""


def address_mac(ipv4: str, ipv6: str = "") -> str:
    """A MAC derived from the address, so that an address in new use never meets a stale ARP entry (moby#36069)."""
    packed = socket.inet_aton(ipv4) if ipv4 else hashlib.sha256(ipv6.encode()).digest()[:4]
    return (b"\x02\x42" + packed).hex(":")


def veth_name(prefix: str, endpoint: Endpoint) -> str:
    """The name of the host's end, 15 bytes: the prefix, the container's ID, the number of the interface."""
    return f"{prefix}v{endpoint.id[: 10 - len(prefix)]}{endpoint.order}"


def shaper_name(prefix: str, veth: str) -> str:
    """The name of the ifb link of the limits of *veth*."""
    return f"{prefix}i{veth.removeprefix(prefix)[1:]}"


def _is_on(network: Network, option: str) -> bool:
    return network.options.get(option, "true") not in OFF


class BridgeDriver:
    """Driver `bridge`; its links begin with *prefix*."""

    name = "bridge"

    def __init__(self, prefix: str = "ps") -> None:
        self.prefix = prefix

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """See `Driver.missing`."""
        del network
        return () if "bridge" in host.features else ("the kernel has no bridge (CONFIG_BRIDGE)",)

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """See `Driver.desired_state`."""
        mtu = int(network.options.get(OPTION + "driver.mtu", host.mtu))
        gateways = {6 if ":" in s.cidr else 4: s.gateway for s in reversed(network.subnets)}
        addresses = tuple(f"{s.gateway}/{s.cidr.split('/')[1]}" for s in network.subnets if s.gateway)
        objects: set[KernelObject] = {
            Bridge(network.link, address_mac(gateways.get(4, ""), gateways.get(6, "")), mtu, addresses)
        }
        veths = tuple(
            _veth(self.prefix, e, network.link, mtu, network.subnets, network.services, network.internal) for e in endpoints
        )
        objects.update(veths)
        objects.update(
            Shaper(
                name=shaper_name(self.prefix, veth.name),
                link=veth.name,
                netns=veth.netns,
                order=veth.order,
                mtu=mtu,
                rates=endpoint.rates,
            )
            for veth, endpoint in zip(veths, endpoints, strict=True)
            if endpoint.rates
        )
        isolation = FirewallPolicy(
            link=network.link,
            subnets=tuple(s.cidr for s in network.subnets),
            internal=network.internal,
            services=network.services,
            own=network.own,
            masquerade=_is_on(network, OPTION + "bridge.enable_ip_masquerade"),
            icc=_is_on(network, OPTION + "bridge.enable_icc"),
            senders=frozenset(veths) if _is_on(network, "anti_spoofing") else None,
        )
        return NetworkState(frozenset(objects), isolation)


def trim(endpoints: int) -> None:
    """Clear the cache of veths where most of it must be of endpoints that are gone; *endpoints* is how many there are."""
    cache.trim(_veth, endpoints)


@functools.lru_cache(None)
def _veth(
    prefix: str, endpoint: Endpoint, link: str, mtu: int, subnets: tuple[Subnet, ...], services: tuple[str, ...], internal: bool
) -> Veth:
    """Cached: all are described whenever one changes."""
    pools = [(ipaddress.ip_network(s.cidr), s.gateway) for s in subnets]
    own = {4: endpoint.ipv4, 6: endpoint.ipv6}
    mine = {  # of several pools of a family, the one that has the address
        net.version: (net.prefixlen, gateway)
        for net, gateway in pools
        if own[net.version] and ipaddress.ip_address(own[net.version]) in net
    }
    routed = endpoint.default and not internal
    return Veth(
        name=veth_name(prefix, endpoint),
        master=link,
        netns=endpoint.netns,
        peer=endpoint.interface or f"eth{endpoint.order}",
        order=endpoint.order,
        mac=endpoint.mac or address_mac(endpoint.ipv4, endpoint.ipv6),
        mtu=mtu,
        addresses=(
            *(f"{own[v]}/{mine[v][0]}" for v in (4, 6) if v in mine),
            *(f"{a}/{64 if ':' in a else 16}" for a in endpoint.link_local),
        ),
        gateways=tuple(mine[v][1] for v in (4, 6) if routed and v in mine and mine[v][1]),
        routes=tuple(
            (cidr, mine[v][1]) for cidr in services if (v := ipaddress.ip_network(cidr).version) in mine and mine[v][1]
        ),
    )
