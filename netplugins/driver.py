"""The Driver interface: a driver says what must exist, one applier makes it so.

A driver looks at nothing and changes nothing. So it is tested without root, a doctor is the difference between its
answer and the kernel in words, repair is applying that difference, and a third party's driver cannot leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Subnet(msgspec.Struct, frozen=True):
    """*gateway* "": nobody routes for this subnet."""

    cidr: str
    gateway: str


class RemoteEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint on another node, which is reached at *underlay*. *mac* "" follows from the address."""

    underlay: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""


class WireguardPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The far end of a tunnel: its public *key* in Base64, where it listens, and its *address* in the tunnel."""

    key: str
    endpoint: str
    port: int
    address: str


class WireguardDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The node's WireGuard device, one for all of its encrypted networks. *private_key* is the path of a file of 32 bytes."""

    name: str
    private_key: str
    address: str
    port: int
    mtu: int
    peers: frozenset[WireguardPeer] = frozenset()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network as drivers see it. *link* is the name of its main link, at most 15 bytes (IFNAMSIZ).

    For an overlay: *vni* (24 bits), *underlay* (this node's address for the others), *own* (addresses that this node
    has on the network, the gateway's apart), *services* (CIDRs of services' addresses; *balanced* where a service has one),
    *remotes*. With a *tunnel*, addresses of the underlay are those in the tunnel."""

    name: str
    link: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    options: dict[str, str] = {}
    vni: int = 0
    underlay: str = ""
    own: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    balanced: bool = False
    remotes: tuple[RemoteEndpoint, ...] = ()
    tunnel: WireguardDevice | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """A container on a network: *order* counts its interfaces (eth0, eth1 …); *default* marks the one that holds the
    default route. Addresses are without prefix length; "" where a family is not in use."""

    id: str
    network: str
    netns: str
    order: int = 0
    interface: str = ""
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    default: bool = True
    link_local: tuple[str, ...] = ()


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    """Host port → container port. *host_ip* "" is every address of the host; protocol tcp, udp or sctp."""

    endpoint: str
    host_ip: str
    port: int
    protocol: str
    ipv4: str
    ipv6: str
    target: int


class LoadBalancer(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Connections to *address* (a service's own, "" for none) or to *ports* of the host (published, protocol, target)
    go to one of *backends*, addresses of one family."""

    version: int
    address: str
    ports: tuple[tuple[int, str, int], ...]
    backends: tuple[str, ...]


class HostCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may know of the host: *mtu* of its underlay, link kinds that its kernel can make, names of *links*
    that are the host's own."""

    mtu: int = 1500
    features: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


class Bridge(msgspec.Struct, frozen=True):
    """A bridge link with the addresses (CIDR) that the host holds on it, the one it speaks from first. *filtered*: what
    it bridges passes netfilter too, as the way back of translated connections must."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    filtered: bool = False


class Veth(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """A veth pair: *name* on the host, enslaved to *master*; *peer* in *netns* with addresses, default gateways
    and *routes* (CIDR, gateway)."""

    name: str
    master: str
    netns: str
    peer: str
    order: int
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    routes: tuple[tuple[str, str], ...] = ()


VXLAN_PORT = 4789
"""UDP port of VXLAN packets. Source: RFC 7348 §5."""


class Vxlan(msgspec.Struct, frozen=True, kw_only=True):
    """A VXLAN device, enslaved to *master*: learns nothing, floods nothing, answers no ARP of its own."""

    name: str
    master: str
    vni: int
    port: int
    local: str
    mtu: int


class FdbEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint behind *vxlan*: frames to *mac* go to *underlay*; neighbours on *bridge* for its *addresses*."""

    bridge: str
    vxlan: str
    mac: str
    underlay: str
    addresses: tuple[str, ...]


class Vlan(msgspec.Struct, frozen=True, kw_only=True):
    """An 802.1Q sub-interface of *parent*, a link of the host."""

    name: str
    parent: str
    vid: int


class ParentedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A macvlan or ipvlan link (*kind*) on *parent*, called *interface* in *netns*. It is born as *name*.

    *mac* "" and *mtu* 0 are the parent's. *onlink*: the default route leads through the link, with no gateway.
    *probed*: the LAN is asked whether somebody has the addresses already, before they are taken."""

    name: str
    kind: str
    mode: str
    flag: str = ""
    parent: str
    netns: str
    interface: str
    order: int
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    onlink: bool = False
    probed: bool = True


KernelObject = Bridge | Veth | Vxlan | Vlan | ParentedLink | WireguardDevice


class FirewallPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the firewall must do for one bridge."""

    link: str
    subnets: tuple[str, ...]
    internal: bool
    services: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    masquerade: bool = True
    icc: bool = True
    senders: frozenset[Veth] | None = None
    """Who may send on the bridge from its own addresses alone; None: nobody is held to them."""


class NetworkState(msgspec.Struct, frozen=True):
    """All that must exist for one network on one host, and nothing else."""

    objects: frozenset[KernelObject] = frozenset()
    firewall: FirewallPolicy | None = None
    fdb: frozenset[FdbEntry] = frozenset()


class Driver(Protocol):
    """A network driver; third parties register theirs by entry point `pystack.netplugins`."""

    name: str

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """What the host lacks for *network*, one sentence each; empty where all is there."""
        ...

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """All that must exist for *network* on *host*. Looks at nothing, changes nothing."""
        ...
