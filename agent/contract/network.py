"""Networks as a node must build them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.contract.project_labels import project_labels
from agent.contract.wire import WireStruct

VXLAN_PORT = 4789
"""The UDP port of VXLAN packets where no other was chosen. Source: RFC 7348 §5."""

MTU_OPTION = "com.docker.network.driver.mtu"

HEARTBEAT = "Pystack-Heartbeat"
"""The header with which an agent announces the heartbeat of its status stream, in seconds."""


class Subnet(WireStruct, frozen=True, kw_only=True):
    """One address pool of a network, CIDR, with the address that the host holds in it. Addresses are allocated from
    *ip_range* (CIDR, "" is all of it), except those *reserved*, which may have *reserved_names*."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    reserved: tuple[str, ...] = ()
    reserved_names: tuple[str, ...] = ()


class AddressAssignment(WireStruct, frozen=True, kw_only=True):
    """The addresses of a node or a service on a network."""

    name: str
    ipv4: str = ""
    ipv6: str = ""


class Network(WireStruct, frozen=True, kw_only=True):
    """A network as a node must build it. *name* is unique on the node, `<stack>_<key>` unless the file says otherwise.

    An overlay has a *vni* (24 bits), *service_pools* (CIDRs of the addresses of whole services), *hosts* (the nodes that
    carry it, with an address of their own on it) and *vips* (services that have one address). Its nodes send each other its
    packets to the UDP port *vxlan_port*, the same for as long as it exists."""

    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    attachable: bool = False
    options: tuple[tuple[str, str], ...] = ()
    ipam_options: tuple[tuple[str, str], ...] = ()
    """Shown in the API, without effect: the built-in address allocator has no options."""
    labels: tuple[tuple[str, str], ...] = ()
    stack: str = ""
    key: str = ""
    vni: int = 0
    vxlan_port: int = VXLAN_PORT
    service_pools: tuple[str, ...] = ()
    hosts: tuple[AddressAssignment, ...] = ()
    vips: tuple[AddressAssignment, ...] = ()
    created: str = ""
    """When it was made by hand; "" for a stack's."""

    def __post_init__(self) -> None:
        # one network that cannot be computed would keep a node from all of them
        if len(self.name) > 255:
            raise ValueError(f"network {self.name[:60]}…: its name has more than 255 characters")
        mtu = dict(self.options).get(MTU_OPTION, "1500")
        if not (re.fullmatch(r"[0-9]{1,5}", mtu) and 68 <= int(mtu) < 1 << 16):
            raise ValueError(f"network {self.name[:60]}: {MTU_OPTION} {mtu[:60]!r}: a number from 68 to 65535")

    @property
    def own_labels(self) -> dict[str, str]:
        """Its labels, and those that mark it as its stack's."""
        pools = [(s.cidr, s.gateway, s.ip_range) for s in self.subnets]
        described = (self.name, self.driver, self.internal, self.attachable, pools, sorted(self.options), sorted(self.labels))
        return dict(self.labels) | project_labels("network", self.stack, self.key, *described)

    @property
    def encrypted(self) -> bool:
        """Whether traffic between nodes on it is encrypted."""
        return self.driver == "overlay" and is_encrypted(self.options)

    @property
    def on_lan(self) -> bool:
        """Whether its containers stand on a LAN of the hosts, with addresses of that."""
        return self.driver in ("macvlan", "ipvlan")


def is_encrypted(options: Iterable[tuple[str, str]]) -> bool:
    """Whether the options of an overlay ask for encryption: in Docker the key does, with any value."""
    return dict(options).get("encrypted", "false").lower() not in ("false", "0")
