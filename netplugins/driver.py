"""The interface of drivers: a driver describes what must exist, and `Kernel` makes the kernel equal to it.

A driver reads nothing and changes nothing. So it is tested without root, the doctor compares its description with the
kernel, repair applies the difference, and the driver of a third party cannot leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

VXLAN_PORT = 4789
"""UDP port of VXLAN packets, where no other was chosen. Source: RFC 7348 §5."""


class Subnet(msgspec.Struct, frozen=True):
    """A subnet of a network; *gateway* "" if nothing routes for it."""

    cidr: str
    gateway: str


class RemoteEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint on another node, whose address in the underlay is *underlay*. *mac* "": derived from its address."""

    underlay: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""


class WireguardPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer: its public *key* in Base64, its *endpoint* and *port* in the underlay, and its *address* in the tunnel."""

    key: str
    endpoint: str
    port: int
    address: str


class WireguardDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The node's WireGuard device, one for all of its encrypted networks. *private_key* is the path of a file of 32 bytes,
    *address* this node's in the tunnel, *mtu* in bytes."""

    name: str
    private_key: str
    address: str
    port: int
    mtu: int
    peers: frozenset[WireguardPeer] = frozenset()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network as drivers see it. *link* is the name of its main link, at most 15 bytes (IFNAMSIZ).

    For an overlay: *vni* (24 bits), *vxlan_port* (UDP), *underlay* (this node's address there), *own* (this node's addresses on
    the network, without the gateway's), *services* (CIDRs of services' addresses; *balanced* where a service has one),
    *remotes*. With a *tunnel*, addresses of the underlay are those in the tunnel."""

    name: str
    link: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    options: dict[str, str] = {}
    vni: int = 0
    vxlan_port: int = VXLAN_PORT
    underlay: str = ""
    own: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    balanced: bool = False
    remotes: tuple[RemoteEndpoint, ...] = ()
    tunnel: WireguardDevice | None = None


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What a container may receive (*ingress*) and send (*egress*) on one link, in bits a second of whole frames; 0 means
    no limit. *burst* is how many bytes may pass at once, 0 for a size that suits the rate."""

    ingress: int = 0
    egress: int = 0
    burst: int = 0

    def __bool__(self) -> bool:
        return bool(self.ingress or self.egress)


UNLIMITED = Rates()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """A container on a network: *order* counts its interfaces (eth0, eth1 …); *default* marks the one with the default
    route. Addresses have no prefix length; "" if a family is not in use. *rates* limit what passes."""

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
    rates: Rates = UNLIMITED


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
    go to one of *backends*, addresses of IP *version*. *weights* are theirs, in their order; none: all alike."""

    version: int
    address: str
    ports: tuple[tuple[int, str, int], ...]
    backends: tuple[str, ...]
    weights: tuple[int, ...] = ()


class HostCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver may know of the host: *mtu* of its underlay in bytes, kinds of links that it can create (*features*),
    names of *links* that are the host's own."""

    mtu: int = 1500
    features: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


class Bridge(msgspec.Struct, frozen=True):
    """A bridge with the *addresses* (CIDR) that the host holds on it, first the one that it sends from. *filtered*: bridged
    packets pass netfilter too, as the replies of translated connections must."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    filtered: bool = False


class Veth(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """A veth pair: *name* on the host is a port of *master*; *peer* in *netns* has the addresses, default gateways and
    *routes* (CIDR, gateway)."""

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


class Vxlan(msgspec.Struct, frozen=True, kw_only=True):
    """A VXLAN device, a port of *master*, which learns nothing and floods nothing; *local* is its source address."""

    name: str
    master: str
    vni: int
    port: int
    local: str
    mtu: int


class FdbEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A remote endpoint behind *vxlan*: frames to *mac* go to *underlay*; *bridge* has neighbour entries of its *addresses*."""

    bridge: str
    vxlan: str
    mac: str
    underlay: str
    addresses: tuple[str, ...]


class Vlan(msgspec.Struct, frozen=True, kw_only=True):
    """An 802.1Q link with ID *vid* on *parent*, a link of the host."""

    name: str
    parent: str
    vid: int


class ParentedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A macvlan or ipvlan link (*kind*) on *parent*, created as *name*, then *interface* in *netns*.

    *mac* "" and *mtu* 0 are the parent's. *onlink*: the default route leads through the link, without a gateway.
    *probed*: the addresses are taken only where no other host of the LAN has them."""

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
    rates: Rates = UNLIMITED


class Shaper(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the container behind *link*, the host's end of its veth, with an MTU of *mtu* bytes: *rates*. *name* is an ifb
    link, on which what the container sends waits for its turn, out of its reach."""

    name: str
    link: str
    netns: str
    order: int
    mtu: int
    rates: Rates


KernelObject = Bridge | Veth | Vxlan | Vlan | ParentedLink | WireguardDevice | Shaper


class FirewallPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules that one bridge needs. *subnets*, *services* and *own* as in Network; *masquerade* towards other links, *icc*
    between its containers. *internal*: nothing passes to or from other links."""

    link: str
    subnets: tuple[str, ...]
    internal: bool
    services: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    masquerade: bool = True
    icc: bool = True
    senders: frozenset[Veth] | None = None
    """The veths that may send only from their own addresses; None: all may send from any."""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """What the firewall knows of the cluster's nodes. *peers*: the underlay addresses that may send VXLAN packets, None where
    this node has no overlay; packets to its address in the *tunnel* must come out of the tunnel. *vxlan_ports* are the UDP
    ports of all overlays of the cluster.

    At all nodes' *addresses* containers reach the ports published there, *doors* (address, protocol, port), and those that
    are *opened* to them (protocol, port) on every node."""

    peers: frozenset[str] | None = None
    vxlan_ports: frozenset[int] = frozenset({VXLAN_PORT})
    tunnel: WireguardDevice | None = None
    addresses: frozenset[str] = frozenset()
    doors: frozenset[tuple[str, str, int]] = frozenset()
    opened: frozenset[tuple[str, int]] = frozenset()


class NetworkState(msgspec.Struct, frozen=True):
    """All that must exist for one network on one host, and nothing else."""

    objects: frozenset[KernelObject] = frozenset()
    firewall: FirewallPolicy | None = None
    fdb: frozenset[FdbEntry] = frozenset()


class Driver(Protocol):
    """A network driver; third parties register theirs by entry point `pystack.netplugins`."""

    name: str

    def missing(self, network: Network, host: HostCapabilities) -> Sequence[str]:
        """A sentence for each thing that *host* lacks for *network*; empty if it lacks nothing."""
        ...

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        """All that must exist for *network* with *endpoints* on *host*. Pure."""
        ...
