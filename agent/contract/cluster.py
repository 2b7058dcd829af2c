"""The other nodes as a node must know them: endpoints, tunnels, published ports and service addresses."""

from __future__ import annotations

from agent.contract.container import Port
from agent.contract.network import AddressAssignment
from agent.contract.wire import WireStruct


class RemoteEndpoint(WireStruct, frozen=True, kw_only=True):
    """An endpoint on another node: frames to *mac* go to that node's *underlay* address. *names* are its DNS
    names on the network; a node's own address on a network has none."""

    network: str
    underlay: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    names: tuple[str, ...] = ()


class TunnelPeer(WireStruct, frozen=True, kw_only=True):
    """The far end of this node's WireGuard tunnel on node *name*: reached at *underlay*, known by its public *key*."""

    name: str
    underlay: str
    key: str


class OpenPort(WireStruct, frozen=True, kw_only=True):
    """A port that a node publishes at its address *host_ip*, or at all of them."""

    port: int
    protocol: str = "tcp"
    host_ip: str = ""


class ClusterNode(WireStruct, frozen=True, kw_only=True):
    """A node of the cluster (also this one) as its neighbours' firewalls must know it: all its *addresses*, and the *ports*
    published on that node only; *vxlan_ports* are the UDP ports of its overlays, without the usual one."""

    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[OpenPort, ...] = ()
    vxlan_ports: tuple[int, ...] = ()


class ServiceAddress(WireStruct, frozen=True, kw_only=True, cache_hash=True):
    """A service as one: connections to its address, or to its *ports* on any node, go to one of *backends*, the tasks
    that can serve now. *names* lead to the address. *weights* are those of the backends, in their order; none: all alike. A
    node sends connections to the ports to backends of its own first, unless the service is *balanced* or has weights."""

    service: str
    network: str
    ipv4: str = ""
    ipv6: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    backends: tuple[AddressAssignment, ...] = ()
    weights: tuple[int, ...] = ()
    balanced: bool = False
