"""The macvlan and ipvlan drivers: containers with addresses of the LAN of a link of the host, the parent.

`parent` may name a VLAN (`eth0.20`): where the host has no such link, one is created on `eth0`, under a name of ours.
Without a parent the network is a bridge for the containers of one host. The kernel forwards nothing between a host and the
links on its parent: what the host must reach needs another network.
Source: ip-link(8); Documentation/networking/ipvlan.rst of Linux.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence

import msgspec

from netplugins.bridge import OPTION, BridgeDriver, address_mac
from netplugins.driver import Endpoint, HostCapabilities, KernelObject, Network, NetworkState, ParentedLink, Subnet, Vlan
from netplugins.linux.rtnetlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from netplugins.vlan import parent_available, vlan_of


class ParentDriver:
    """The common part of macvlan and ipvlan: links on a parent; its links begin with *prefix*."""

    name: str
    modes: Mapping[str, int]

    def __init__(self, prefix: str = "ps") -> None:
        self.prefix = prefix
        self._bridge = BridgeDriver(prefix)

    def mode(self, network: Network) -> str:
        """The mode of the network's links: an option, or the driver's first."""
        options = network.options
        return options.get(f"{self.name}_mode") or options.get("mode") or next(iter(self.modes))

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """See `Driver.missing`."""
        parent = network.options.get("parent", "")
        missing = []
        if self.name not in host.features:
            missing.append(f"the kernel has no {self.name} (CONFIG_{self.name.upper()})")
        if self.mode(network) not in self.modes:
            missing.append(f"{self.name} has no mode {self.mode(network)!r}: its modes are {', '.join(self.modes)}")
        if parent and parent not in host.links and vlan_of(parent) and "vlan" not in host.features:
            missing.append(
                f"the parent link {parent} does not exist, and the kernel cannot create it: no VLANs (CONFIG_VLAN_8021Q)"
            )
        elif not parent_available(parent, host.links):
            missing.append(f"the parent link {parent} does not exist: the host has {', '.join(sorted(host.links)) or 'none'}")
        return missing

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """See `Driver.desired_state`. Nothing is on the host's links while no endpoint needs it."""
        if not network.options.get("parent"):
            unrouted = tuple(Subnet(s.cidr, "") for s in network.subnets)
            inner = msgspec.structs.replace(network, internal=True, subnets=unrouted)
            return self._bridge.desired_state(inner, endpoints, host)
        objects: set[KernelObject] = set()
        parent, vlan = network.options.get("parent", ""), vlan_of(network.options.get("parent", ""))
        if not endpoints:
            return NetworkState()
        if vlan and parent not in host.links:
            mark = hashlib.sha256(vlan[0].encode()).hexdigest()[:5]
            link = Vlan(name=f"{self.prefix}l{vlan[1]}{mark}", parent=vlan[0], vid=vlan[1])
            objects.add(link)
            parent = link.name
        for endpoint in endpoints:
            objects.add(self._link(network, endpoint, parent))
        return NetworkState(frozenset(objects))

    def _link(self, network: Network, endpoint: Endpoint, parent: str) -> ParentedLink:
        own = {4: endpoint.ipv4, 6: endpoint.ipv6}
        mine = {
            net.version: (net.prefixlen, s.gateway)
            for s in network.subnets
            if own[(net := ipaddress.ip_network(s.cidr)).version] and ipaddress.ip_address(own[net.version]) in net
        }
        routed = endpoint.default and not network.internal
        mode = self.mode(network)
        onlink = routed and self.name == "ipvlan" and mode != "l2"
        return ParentedLink(
            name=f"{self.prefix}m{endpoint.id[: 10 - len(self.prefix)]}{endpoint.order}",
            kind=self.name,
            mode=mode,
            flag=network.options.get("ipvlan_flag", "bridge") if self.name == "ipvlan" else "",
            parent=parent,
            netns=endpoint.netns,
            interface=endpoint.interface or f"eth{endpoint.order}",
            order=endpoint.order,
            mac=self._mac(endpoint, mode),
            mtu=int(network.options.get(OPTION + "driver.mtu", 0)),
            addresses=tuple(f"{own[v]}/{mine[v][0]}" for v in (4, 6) if v in mine),
            gateways=() if onlink else tuple(mine[v][1] for v in (4, 6) if routed and v in mine and mine[v][1]),
            onlink=onlink,
            probed=not (self.name == "ipvlan" and mode != "l2"),
            rates=endpoint.rates,
        )

    def _mac(self, endpoint: Endpoint, mode: str) -> str:
        raise NotImplementedError


class MacvlanDriver(ParentDriver):
    """Driver `macvlan`: each container has its own MAC."""

    name = "macvlan"
    modes: Mapping[str, int] = {"bridge": MACVLAN_MODES["bridge"], **MACVLAN_MODES}

    def _mac(self, endpoint: Endpoint, mode: str) -> str:
        if mode == "passthru":  # it would become the parent's own
            return endpoint.mac
        return endpoint.mac or address_mac(endpoint.ipv4, endpoint.ipv6)


class IpvlanDriver(ParentDriver):
    """Driver `ipvlan`: all containers have the parent's MAC."""

    name = "ipvlan"
    modes = IPVLAN_MODES

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """See `Driver.missing`; the option `ipvlan_flag` is checked too."""
        missing = list(super().missing(network, host))
        flag = network.options.get("ipvlan_flag", "bridge")
        if flag not in IPVLAN_FLAGS:
            missing.append(f"ipvlan has no flag {flag!r}: its flags are {', '.join(IPVLAN_FLAGS)}")
        return missing

    def _mac(self, endpoint: Endpoint, mode: str) -> str:
        return ""
