"""Messages of rtnetlink that create, change and delete links, addresses, routes, neighbour and FDB entries.

Each function returns what `netlink.Socket.run` sends. Indices are those of links; *what* is the name that errors show.
Source: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache

from netplugins.linux import uapi
from netplugins.linux.netlink import FAMILIES, Message, attribute, ifinfo, mac_bytes, packed, text, u32

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
DELETE_GROUP = 0x70736B64
"""The link group, "pskd", of the links that one message deletes."""
_NEW = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
_SET = uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE


def _link_info(kind: str, data: bytes = b"") -> bytes:
    return attribute(
        uapi.IFLA_LINKINFO, text(uapi.IFLA_INFO_KIND, kind) + (attribute(uapi.IFLA_INFO_DATA, data) if data else b"")
    )


def _named(name: str, *, up: bool | None = None) -> bytes:
    return ifinfo(up=up) + text(uapi.IFLA_IFNAME, name)


# --- links -----------------------------------------------------------------------------------------------------------

_UNLEARNED = attribute(uapi.IFLA_BR_MULTI_BOOLOPT, struct.pack("=II", uapi.BR_BOOLOPT_NO_LL_LEARN, uapi.BR_BOOLOPT_NO_LL_LEARN))
"""A bridge learns nothing from frames to 01:80:c2:00:00:0X, some of which no hook of netfilter sees (net/bridge/br_input.c)."""


def add_link(name: str, kind: str) -> Message:
    """A link of *kind* with the kernel's defaults."""
    return Message(uapi.RTM_NEWLINK, _NEW, _named(name) + _link_info(kind), f"create {kind} link {name}")


def add_bridge(name: str, mtu: int, mac: str) -> Message:
    """A bridge that is up."""
    payload = _named(name, up=True) + u32(uapi.IFLA_MTU, mtu) + attribute(uapi.IFLA_ADDRESS, mac_bytes(mac))
    return Message(uapi.RTM_NEWLINK, _NEW, payload + _link_info("bridge", _UNLEARNED), f"create bridge {name}")


def set_bridge(index: int, mtu: int, mac: str, what: str, *, filtered: bool) -> Message:
    """*filtered*: packets that this bridge forwards pass the IP hooks of netfilter (br_netfilter)."""
    flag = bytes([filtered])
    data = attribute(uapi.IFLA_BR_NF_CALL_IPTABLES, flag) + attribute(uapi.IFLA_BR_NF_CALL_IP6TABLES, flag) + _UNLEARNED
    payload = ifinfo(index) + u32(uapi.IFLA_MTU, mtu) + attribute(uapi.IFLA_ADDRESS, mac_bytes(mac))
    return Message(uapi.RTM_NEWLINK, 0, payload + _link_info("bridge", data), f"set up bridge {what}")


def add_veth(name: str, *, master: int, peer: str, peer_netns: int, peer_mac: str, mtu: int) -> Message:
    """A veth pair. The peer is created in the namespace of the file descriptor *peer_netns* under its final name."""
    inner = ifinfo() + text(uapi.IFLA_IFNAME, peer) + u32(uapi.IFLA_MTU, mtu)
    inner += attribute(uapi.IFLA_ADDRESS, mac_bytes(peer_mac)) + u32(uapi.IFLA_NET_NS_FD, peer_netns)
    payload = _named(name, up=True) + u32(uapi.IFLA_MTU, mtu) + u32(uapi.IFLA_MASTER, master)
    info = _link_info("veth", attribute(uapi.VETH_INFO_PEER, inner))
    return Message(uapi.RTM_NEWLINK, _NEW, payload + info, f"create veth {name}")


def add_vxlan(name: str, *, vni: int, port: int, local: str, mtu: int, master: int) -> Message:
    """A VXLAN device without learning, a port of the bridge *master*; *local* is the source address of its packets."""
    kind = uapi.IFLA_VXLAN_LOCAL6 if ":" in local else uapi.IFLA_VXLAN_LOCAL
    data = u32(uapi.IFLA_VXLAN_ID, vni) + attribute(uapi.IFLA_VXLAN_LEARNING, b"\0")
    data += attribute(kind, packed(local)) + attribute(uapi.IFLA_VXLAN_PORT, struct.pack("!H", port))
    payload = _named(name) + u32(uapi.IFLA_MTU, mtu) + u32(uapi.IFLA_MASTER, master)
    return Message(uapi.RTM_NEWLINK, _NEW, payload + _link_info("vxlan", data), f"create vxlan {name} (VNI {vni})")


def add_vlan(name: str, *, parent: int, vid: int) -> Message:
    """An 802.1Q link on *parent* that is up."""
    payload = _named(name, up=True) + u32(uapi.IFLA_LINK, parent)
    info = _link_info("vlan", attribute(uapi.IFLA_VLAN_ID, struct.pack("=H", vid)))
    return Message(uapi.RTM_NEWLINK, _NEW, payload + info, f"create VLAN link {name} (802.1Q ID {vid})")


def macvlan_info(mode: str) -> bytes:
    """The link info of a macvlan link, for `add_parented_link`; *mode* is one of MACVLAN_MODES."""
    return _link_info("macvlan", u32(uapi.IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]))


def ipvlan_info(mode: str, flag: str) -> bytes:
    """The link info of an ipvlan link, for `add_parented_link`; of IPVLAN_MODES and IPVLAN_FLAGS."""
    data = attribute(uapi.IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode]))
    return _link_info("ipvlan", data + attribute(uapi.IFLA_IPVLAN_FLAGS, struct.pack("=H", IPVLAN_FLAGS[flag])))


def add_parented_link(name: str, info: bytes, *, parent: int, netns: int, mac: str, mtu: int, what: str) -> Message:
    """A link on *parent*, created in the namespace of the file descriptor *netns*. *mac* "" and *mtu* 0: as the parent."""
    payload = _named(name) + u32(uapi.IFLA_LINK, parent) + u32(uapi.IFLA_NET_NS_FD, netns)
    if mac:
        payload += attribute(uapi.IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        payload += u32(uapi.IFLA_MTU, mtu)
    return Message(uapi.RTM_NEWLINK, _NEW, payload + info, f"create {what}")


def bridge_port_no_learning(index: int, what: str) -> Message:
    """Bring the bridge port up; it learns nothing, floods no unknown unicast, and the bridge answers ARP and ND for it."""
    port = attribute(uapi.IFLA_BRPORT_LEARNING, b"\0") + attribute(uapi.IFLA_BRPORT_UNICAST_FLOOD, b"\0")
    port += attribute(uapi.IFLA_BRPORT_NEIGH_SUPPRESS, b"\1")
    slave = text(uapi.IFLA_INFO_SLAVE_KIND, "bridge") + attribute(uapi.IFLA_INFO_SLAVE_DATA, port)
    return Message(uapi.RTM_NEWLINK, 0, ifinfo(index, up=True) + attribute(uapi.IFLA_LINKINFO, slave), f"set up port {what}")


def set_mtu(index: int, mtu: int, what: str) -> Message:
    """*mtu* in bytes."""
    return Message(uapi.RTM_NEWLINK, 0, ifinfo(index) + u32(uapi.IFLA_MTU, mtu), f"set the MTU of {what}")


def link_up(index: int, what: str) -> Message:
    """Bring a link up."""
    return Message(uapi.RTM_NEWLINK, 0, ifinfo(index, up=True), f"bring {what} up")


def rename(index: int, name: str) -> Message:
    """Give a link that is down another name."""
    return Message(uapi.RTM_NEWLINK, 0, ifinfo(index) + text(uapi.IFLA_IFNAME, name), f"rename a link to {name}")


def delete_links(names: Sequence[str]) -> list[Message]:
    """Delete all of *names* at once: one link after the other would each wait for the kernel's grace period."""
    if len(names) == 1:
        return [Message(uapi.RTM_DELLINK, 0, _named(names[0]), f"delete link {names[0]}")]
    group = u32(uapi.IFLA_GROUP, DELETE_GROUP)
    marks = [Message(uapi.RTM_SETLINK, 0, _named(name) + group, f"mark link {name}") for name in names]
    return [*marks, Message(uapi.RTM_DELLINK, 0, ifinfo() + group, f"delete {len(names)} links")]


# --- FDB and neighbour entries ---------------------------------------------------------------------------------------

_NDMSG = struct.Struct("=BxxxiHBB").pack
_DEVICE_STATE = uapi.NUD_NOARP | uapi.NUD_PERMANENT


@lru_cache(64)
def _hardware(mac: str) -> bytes:
    return attribute(uapi.NDA_LLADDR, mac_bytes(mac))


@lru_cache(1024)
def _destination(underlay: str) -> bytes:
    return attribute(uapi.NDA_DST, packed(underlay))


def fdb_entry(index: int, mac: str, underlay: str, *, add: bool) -> list[Message]:
    """Frames to *mac* leave by the VXLAN device *index* for *underlay*: an entry of the device, and one of its bridge."""
    kind, flags = (uapi.RTM_NEWNEIGH, _SET) if add else (uapi.RTM_DELNEIGH, 0)
    hardware, what = _hardware(mac), f"{'add' if add else 'delete'} FDB entry {mac} at {underlay}"
    device = _NDMSG(uapi.AF_BRIDGE, index, _DEVICE_STATE, uapi.NTF_SELF, 0) + hardware + _destination(underlay)
    bridge = _NDMSG(uapi.AF_BRIDGE, index, uapi.NUD_NOARP, uapi.NTF_MASTER, 0) + hardware
    return [Message(kind, flags, device, what), Message(kind, flags, bridge, what)]


def neighbour(index: int, address: str, mac: str, *, add: bool) -> Message:
    """The permanent neighbour entry of *address* on link *index*."""
    kind, flags = (uapi.RTM_NEWNEIGH, _SET) if add else (uapi.RTM_DELNEIGH, 0)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    payload = _NDMSG(family, index, uapi.NUD_PERMANENT, 0, 0) + attribute(uapi.NDA_DST, packed(address)) + _hardware(mac)
    return Message(kind, flags, payload, f"{'add' if add else 'delete'} neighbour {address}")


# --- addresses and routes --------------------------------------------------------------------------------------------

_IFADDRMSG = struct.Struct("=BBBBI").pack
_RTMSG = struct.Struct("=BBBBBBBBI").pack


def add_address(index: int, cidr: str, what: str) -> Message:
    """Duplicate address detection is off: the plan gives each address once."""
    interface = ipaddress.ip_interface(cidr)
    raw = interface.ip.packed
    head = _IFADDRMSG(FAMILIES[interface.version], interface.network.prefixlen, uapi.IFA_F_NODAD, uapi.RT_SCOPE_UNIVERSE, index)
    payload = head + attribute(uapi.IFA_LOCAL, raw) + attribute(uapi.IFA_ADDRESS, raw)
    return Message(uapi.RTM_NEWADDR, _SET, payload, f"give {what} the address {cidr}")


def delete_address(index: int, cidr: str, what: str) -> Message:
    """Take an address from a link."""
    interface = ipaddress.ip_interface(cidr)
    head = _IFADDRMSG(FAMILIES[interface.version], interface.network.prefixlen, 0, 0, index)
    payload = head + attribute(uapi.IFA_LOCAL, interface.ip.packed)
    return Message(uapi.RTM_DELADDR, 0, payload, f"take {cidr} from {what}")


def _route(version: int, length: int, attributes: bytes, what: str, *, protocol: int, scope: int) -> Message:
    head = _RTMSG(FAMILIES[version], length, 0, 0, uapi.RT_TABLE_MAIN, protocol, scope, uapi.RTN_UNICAST, 0)
    return Message(uapi.RTM_NEWROUTE, _SET, head + attributes, what)


def add_connected_route(index: int, cidr: str, what: str) -> Message:
    """The route that the kernel itself adds with an address, for one that was deleted."""
    interface = ipaddress.ip_interface(cidr)
    network = interface.network
    attributes = attribute(uapi.RTA_DST, network.network_address.packed) + u32(uapi.RTA_OIF, index)
    if interface.version == 4:
        attributes += attribute(uapi.RTA_PREFSRC, interface.ip.packed)
    what = f"route {network} to {what}"
    protocol, scope = uapi.RTPROT_KERNEL, uapi.RT_SCOPE_LINK
    return _route(interface.version, network.prefixlen, attributes, what, protocol=protocol, scope=scope)


def add_default_route(index: int, gateway: str, what: str) -> Message:
    """The default route through *gateway*."""
    via = ipaddress.ip_address(gateway)
    attributes = attribute(uapi.RTA_GATEWAY, via.packed) + u32(uapi.RTA_OIF, index)
    what = f"route {what} through {gateway}"
    return _route(via.version, 0, attributes, what, protocol=uapi.RTPROT_STATIC, scope=uapi.RT_SCOPE_UNIVERSE)


def add_link_route(index: int, version: int, what: str) -> Message:
    """The default route through the link itself, without a gateway, as an ipvlan link in mode l3 needs it."""
    what = f"route {what} through its link"
    return _route(version, 0, u32(uapi.RTA_OIF, index), what, protocol=uapi.RTPROT_STATIC, scope=uapi.RT_SCOPE_LINK)


def add_route(index: int, cidr: str, gateway: str, what: str) -> Message:
    """The route to *cidr* through *gateway*."""
    network, via = ipaddress.ip_network(cidr), ipaddress.ip_address(gateway)
    attributes = attribute(uapi.RTA_DST, network.network_address.packed) + attribute(uapi.RTA_GATEWAY, via.packed)
    attributes += u32(uapi.RTA_OIF, index)
    what = f"route {cidr} of {what} through {gateway}"
    protocol, scope = uapi.RTPROT_STATIC, uapi.RT_SCOPE_UNIVERSE
    return _route(via.version, network.prefixlen, attributes, what, protocol=protocol, scope=scope)
