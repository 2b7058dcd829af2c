"""A network driver of one's own: `airgap`, a bridge on which the host has no address.

Its containers reach each other and nothing else: not the host, not another network, not the outside. A driver only says
what must exist; pystack makes it, heals it and takes it away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from netplugins.bridge import address_mac, veth_name
from netplugins.driver import Bridge, Endpoint, HostCapabilities, KernelObject, Network, NetworkState, Veth


class AirgapDriver:
    """Driver `airgap`."""

    name = "airgap"

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix  # all links of this instance begin with it

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """What the host lacks for it."""
        return () if "bridge" in host.features else ("the kernel has no bridge (CONFIG_BRIDGE)",)

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """A bridge without an address, and a veth pair for each endpoint."""
        lengths = {(net := ipaddress.ip_network(s.cidr)).version: net.prefixlen for s in network.subnets}
        objects: set[KernelObject] = {Bridge(network.link, address_mac("", network.name), host.mtu, ())}
        for endpoint in endpoints:
            objects.add(
                Veth(
                    name=veth_name(self.prefix, endpoint),
                    master=network.link,
                    netns=endpoint.netns,
                    peer=endpoint.interface or f"eth{endpoint.order}",
                    order=endpoint.order,
                    mac=endpoint.mac or address_mac(endpoint.ipv4, endpoint.ipv6),
                    mtu=host.mtu,
                    gateways=(),
                    addresses=tuple(f"{a}/{lengths[v]}" for v, a in ((4, endpoint.ipv4), (6, endpoint.ipv6)) if a),
                )
            )
        return NetworkState(frozenset(objects))
