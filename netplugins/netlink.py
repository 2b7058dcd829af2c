"""Rtnetlink messages, encoded by hand and sent in batches.

A whole endpoint is seven messages. pyroute2 spends 0.2-0.8 ms on each, this codec a few microseconds; so what is done
for every container goes through here. Families that are rarely asked are pyroute2's to speak.
Source: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Sequence
from functools import lru_cache

import msgspec

from netplugins.errors import NetworkError

NLMSG_ERROR, NLMSG_DONE = 2, 3
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE = 24
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
F_REQUEST, F_ACK, F_DUMP, F_REPLACE, F_EXCL, F_CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_IFALIAS = 1, 3, 4, 10, 18, 28, 20
IFLA_LINK, IFLA_VLAN_ID, IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 5, 1, 1, 1, 2
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
IFLA_GROUP, DELETE_GROUP = 27, 0x70736B64  # our group number: "pskd"
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES, IFLA_BR_MULTI_BOOLOPT, NO_LINK_LOCAL_LEARNING = 36, 37, 46, 1
IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_NEIGH_SUPPRESS = 8, 9, 32
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 1, 4, 7, 15, 17
NDA_DST, NDA_LLADDR = 1, 2
NTF_SELF, NTF_MASTER, NUD_NOARP, NUD_PERMANENT = 0x02, 0x04, 0x40, 0x80
AF_BRIDGE = 7
RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x4, 0x10, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
NETLINK_NETFILTER, NFNLGRP_NFTABLES, NFT_MSG_NEWGEN = 12, 7, 0x0A0F
SO_RCVBUFFORCE = 33
NFNL_SUBSYS_NFTABLES, BATCH_BEGIN, BATCH_END = 10, 0x10, 0x11
RTM_GETADDR, RTM_GETROUTE, RTPROT_KERNEL, RTA_PREFSRC = 22, 26, 2, 7
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 0, 253, 1


def attribute(kind: int, data: bytes) -> bytes:
    """One rtattr: length, type, value, padded to four bytes."""
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def packed(address: str) -> bytes:
    """An address as the kernel wants it; ipaddress takes ten times as long, which counts where there are thousands."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ifinfo(index: int = 0, *, up: bool | None = None) -> bytes:
    """struct ifinfomsg; *up* None leaves the flag as it is."""
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


class Message(tuple[int, int, bytes, str]):
    """(type, flags, payload, what): *what* is the sentence that an error begins with."""

    def __new__(cls, kind: int, flags: int, payload: bytes, what: str) -> Message:
        return super().__new__(cls, (kind, flags, payload, what))


_UNLEARNED = attribute(IFLA_BR_MULTI_BOOLOPT, struct.pack("=II", NO_LINK_LOCAL_LEARNING, NO_LINK_LOCAL_LEARNING))
"""A bridge learns nothing from frames to 01:80:c2:00:00:0X, some of which no hook of netfilter sees (net/bridge/br_input.c)."""


def add_bridge(name: str, mtu: int, mac: str) -> Message:
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge") + attribute(IFLA_INFO_DATA, _UNLEARNED))
    payload = ifinfo(up=True) + text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + attribute(IFLA_ADDRESS, mac_bytes(mac))
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, payload + info, f"create bridge {name}")


def add_veth(name: str, *, master: int, peer: str, peer_netns: int, peer_mac: str, mtu: int) -> Message:
    """A veth pair made in place: the peer is born in the container's namespace under its final name."""
    inner = ifinfo() + text(IFLA_IFNAME, peer) + u32(IFLA_MTU, mtu)
    inner += attribute(IFLA_ADDRESS, mac_bytes(peer_mac)) + u32(IFLA_NET_NS_FD, peer_netns)
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, inner))
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth") + data)
    payload = ifinfo(up=True) + text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + u32(IFLA_MASTER, master) + info
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, payload, f"create veth {name}")


def add_vxlan(name: str, *, vni: int, port: int, local: str, mtu: int, master: int) -> Message:
    address = ipaddress.ip_address(local)
    data = u32(IFLA_VXLAN_ID, vni) + attribute(IFLA_VXLAN_LEARNING, b"\0")
    data += attribute(IFLA_VXLAN_LOCAL if address.version == 4 else IFLA_VXLAN_LOCAL6, address.packed)
    data += attribute(IFLA_VXLAN_PORT, struct.pack("!H", port))
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan") + attribute(IFLA_INFO_DATA, data))
    payload = ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_MTU, mtu) + u32(IFLA_MASTER, master) + info
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, payload, f"create vxlan {name} (VNI {vni})")


def add_wireguard(name: str) -> Message:
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "wireguard"))
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, ifinfo() + text(IFLA_IFNAME, name) + info, f"create WireGuard device {name}")


def set_mtu(index: int, mtu: int, what: str) -> Message:
    return Message(RTM_NEWLINK, 0, ifinfo(index) + u32(IFLA_MTU, mtu), f"set the MTU of {what}")


def add_vlan(name: str, *, parent: int, vid: int) -> Message:
    data = attribute(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, struct.pack("=H", vid)))
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan") + data)
    payload = ifinfo(up=True) + text(IFLA_IFNAME, name) + u32(IFLA_LINK, parent) + info
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, payload, f"create VLAN link {name} (802.1Q ID {vid})")


def add_child(kind: str, *, parent: int, netns: int, name: str, mode: str, flag: str, mac: str, mtu: int, what: str) -> Message:
    """A macvlan or ipvlan link, born in the namespace of the handle *netns*."""
    if kind == "macvlan":
        data = u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])
    else:
        data = attribute(IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode]))
        data += attribute(IFLA_IPVLAN_FLAGS, struct.pack("=H", IPVLAN_FLAGS[flag]))
    payload = ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_LINK, parent) + u32(IFLA_NET_NS_FD, netns)
    if mac:
        payload += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        payload += u32(IFLA_MTU, mtu)
    payload += attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind) + attribute(IFLA_INFO_DATA, data))
    return Message(RTM_NEWLINK, F_CREATE | F_EXCL, payload, f"create {kind} link ({mode}) on {what}")


def bridge_port_no_learning(index: int, what: str) -> Message:
    """A bridge port that learns nothing, and behind which the bridge itself answers ARP and ND; up."""
    port = attribute(IFLA_BRPORT_LEARNING, b"\0") + attribute(IFLA_BRPORT_UNICAST_FLOOD, b"\0")
    port += attribute(IFLA_BRPORT_NEIGH_SUPPRESS, b"\1")
    slave = text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, port)
    return Message(RTM_NEWLINK, 0, ifinfo(index, up=True) + attribute(IFLA_LINKINFO, slave), f"set up port {what}")


_NDMSG = struct.Struct("=BxxxiHBB").pack


@lru_cache(64)
def _hardware(mac: str) -> bytes:
    return attribute(NDA_LLADDR, mac_bytes(mac))


@lru_cache(1024)
def _at(underlay: str) -> bytes:
    return attribute(NDA_DST, packed(underlay))


def _neighbour(kind: int, family: int, index: int, state: int, flags: int, attributes: bytes, what: str) -> Message:
    mode = F_CREATE | F_REPLACE if kind == RTM_NEWNEIGH else 0
    return Message(kind, mode, _NDMSG(family, index, state, flags, 0) + attributes, what)


def fdb_entry(index: int, mac: str, underlay: str, *, add: bool) -> list[Message]:
    """Frames to *mac* leave by the VXLAN device *index* for *underlay*: an entry of the device, and one of its bridge."""
    kind = RTM_NEWNEIGH if add else RTM_DELNEIGH
    hardware = _hardware(mac)
    what = f"{'add' if add else 'delete'} FDB entry {mac} at {underlay}"
    return [
        _neighbour(kind, AF_BRIDGE, index, NUD_NOARP | NUD_PERMANENT, NTF_SELF, hardware + _at(underlay), what),
        _neighbour(kind, AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, hardware, what),
    ]


def neighbour(index: int, address: str, mac: str, *, add: bool) -> Message:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    attributes = attribute(NDA_DST, packed(address)) + _hardware(mac)
    kind = RTM_NEWNEIGH if add else RTM_DELNEIGH
    return _neighbour(kind, family, index, NUD_PERMANENT, 0, attributes, f"{'add' if add else 'delete'} neighbour {address}")


def delete_links(names: Sequence[str]) -> list[Message]:
    """Deletes all of *names* at once: one link after the other would each wait for the kernel's grace period."""
    if len(names) == 1:
        return [Message(RTM_DELLINK, 0, ifinfo() + text(IFLA_IFNAME, names[0]), f"delete link {names[0]}")]
    marks = [
        Message(RTM_SETLINK, 0, ifinfo() + text(IFLA_IFNAME, name) + u32(IFLA_GROUP, DELETE_GROUP), f"mark link {name}")
        for name in names
    ]
    return [*marks, Message(RTM_DELLINK, 0, ifinfo() + u32(IFLA_GROUP, DELETE_GROUP), f"delete {len(names)} links")]


def set_bridge(index: int, mtu: int, mac: str, what: str, *, filtered: bool) -> Message:
    """*filtered*: bridged packets pass the IP hooks of netfilter (br_netfilter), on this bridge alone."""
    flag = bytes([filtered])
    data = attribute(IFLA_BR_NF_CALL_IPTABLES, flag) + attribute(IFLA_BR_NF_CALL_IP6TABLES, flag)
    data += _UNLEARNED
    info = attribute(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge") + attribute(IFLA_INFO_DATA, data))
    payload = ifinfo(index) + u32(IFLA_MTU, mtu) + attribute(IFLA_ADDRESS, mac_bytes(mac)) + info
    return Message(RTM_NEWLINK, 0, payload, f"set up bridge {what}")


def link_up(index: int, what: str) -> Message:
    return Message(RTM_NEWLINK, 0, ifinfo(index, up=True), f"bring {what} up")


def rename(index: int, name: str) -> Message:
    return Message(RTM_NEWLINK, 0, ifinfo(index) + text(IFLA_IFNAME, name), f"call a link {name}")


def add_address(index: int, cidr: str, what: str) -> Message:
    """Duplicate address detection is off: the plan has seen to it that an address is given once."""
    interface = ipaddress.ip_interface(cidr)
    family = FAMILIES[interface.version]
    raw = interface.ip.packed
    head = struct.pack("=BBBBI", family, interface.network.prefixlen, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
    payload = head + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    return Message(RTM_NEWADDR, F_CREATE | F_REPLACE, payload, f"give {what} the address {cidr}")


def add_connected_route(index: int, cidr: str, what: str) -> Message:
    """The route that the kernel itself makes with an address; for putting it back."""
    interface = ipaddress.ip_interface(cidr)
    family = FAMILIES[interface.version]
    head = struct.pack(
        "=BBBBBBBBI", family, interface.network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_KERNEL, RT_SCOPE_LINK, RTN_UNICAST, 0
    )
    payload = head + attribute(RTA_DST, interface.network.network_address.packed) + u32(RTA_OIF, index)
    if interface.version == 4:
        payload += attribute(RTA_PREFSRC, interface.ip.packed)
    return Message(RTM_NEWROUTE, F_CREATE | F_REPLACE, payload, f"route {interface.network} to {what}")


def delete_address(index: int, cidr: str, what: str) -> Message:
    interface = ipaddress.ip_interface(cidr)
    family = FAMILIES[interface.version]
    head = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, 0, index)
    return Message(RTM_DELADDR, 0, head + attribute(IFA_LOCAL, interface.ip.packed), f"take {cidr} from {what}")


def add_default_route(index: int, gateway: str, what: str) -> Message:
    address = ipaddress.ip_address(gateway)
    family = FAMILIES[address.version]
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    payload = head + attribute(RTA_GATEWAY, address.packed) + u32(RTA_OIF, index)
    return Message(RTM_NEWROUTE, F_CREATE | F_REPLACE, payload, f"route {what} through {gateway}")


def add_link_route(index: int, version: int, what: str) -> Message:
    """The default route through the link itself, as on one that asks nobody for hardware addresses."""
    family = FAMILIES[version]
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0)
    return Message(RTM_NEWROUTE, F_CREATE | F_REPLACE, head + u32(RTA_OIF, index), f"route {what} through its link")


def add_route(index: int, cidr: str, gateway: str, what: str) -> Message:
    network, via = ipaddress.ip_network(cidr), ipaddress.ip_address(gateway)
    family = FAMILIES[via.version]
    head = struct.pack(
        "=BBBBBBBBI", family, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    payload = head + attribute(RTA_DST, network.network_address.packed) + attribute(RTA_GATEWAY, via.packed)
    what = f"route {cidr} of {what} through {gateway}"
    return Message(RTM_NEWROUTE, F_CREATE | F_REPLACE, payload + u32(RTA_OIF, index), what)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the kernel shows it: *master* is an index, 0 for none; the last three are a VXLAN device's."""

    index: int
    name: str
    up: bool
    mtu: int
    master: int
    kind: str
    vni: int = 0
    port: int = 0
    local: bytes = b""


_NLMSGHDR = struct.Struct("=IHHII").pack
BATCH_SIZE = 200
"""Messages in a batch: even if each were refused, the answers fit the receive buffer."""


class Socket:
    """A netlink socket of the network namespace of the thread that makes it. Blocking, for use in worker threads."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(270, 11, 1)  # SOL_NETLINK, NETLINK_EXT_ACK: errors come with a sentence
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Send all, wait for every acknowledgement, and raise the first failure whose errno is not in *ignore*."""
        failure: NetworkError | None = None
        for start in range(0, len(messages), BATCH_SIZE):
            failure = self._batch(messages[start : start + BATCH_SIZE], ignore) or failure
        if failure:
            raise failure

    def transact(self, messages: Sequence[Message]) -> None:
        """Send messages of nf_tables as one transaction. Raises NetworkError, and nothing of it holds then.

        Source: linux/netfilter/nfnetlink.h, NFNL_MSG_BATCH_BEGIN."""
        if failure := self._batch(messages, frozenset(), *(_batch_end(kind) for kind in (BATCH_BEGIN, BATCH_END))):
            raise failure

    def _batch(
        self, messages: Sequence[Message], ignore: frozenset[int], begin: bytes = b"", end: bytes = b""
    ) -> NetworkError | None:
        """Only the last asks for an acknowledgement: the kernel works in order, and failures are always said."""
        first, last = self._sequence + 1, self._sequence + len(messages)
        self._sequence = last
        packet = [begin]
        for number, (kind, flags, payload, _) in enumerate(messages, first):
            flags |= F_REQUEST | F_ACK if number == last else F_REQUEST
            packet += _NLMSGHDR(16 + len(payload), kind, flags, number, 0), payload
        self._socket.send(b"".join([*packet, end]))
        failure = None
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                if kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + 16)
                    if code and -code not in ignore and failure is None:
                        reason = _extended(data[offset : offset + length], flags) or os.strerror(-code)
                        what = messages[sequence - first][3] if first <= sequence <= last else ""
                        failure = NetworkError(f"{what}: {reason} ({errno.errorcode.get(-code, -code)})")
                    if sequence == last:
                        return failure
                offset += (length + 3) & ~3

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """The payloads of all answers to a dump request of *kind*."""
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(payload), kind, F_REQUEST | F_DUMP, self._sequence, 0)
        self._socket.send(head + payload)
        out: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return out
                if sequence == self._sequence:
                    out.append(data[offset + 16 : offset + length])
                offset += (length + 3) & ~3

    def neighbours(self, family: int) -> list[tuple[int, int, int, str, bytes]]:
        """All entries of *family* (AF_BRIDGE: the FDB): (link index, state, flags, MAC, packed address or b"")."""
        payload = struct.pack("=BxxxiHBB", family, 0, 0, 0, 0)
        if family == AF_BRIDGE:  # a dump of the FDB is asked for with an ifinfomsg
            payload = bytes([AF_BRIDGE]) + ifinfo()[1:]
        return [_parse_neighbour(answer) for answer in self.dump(RTM_GETNEIGH, payload)]

    def links(self) -> list[Link]:
        """All links of this namespace."""
        return [_parse_link(answer) for answer in self.dump(RTM_GETLINK, ifinfo())]

    def addresses(self, versions: Collection[int] = (4, 6)) -> set[tuple[int, bytes]]:
        """(link index, packed address) of all addresses of these versions of IP: each link has one of version 6."""
        out = set()
        for version in versions:
            for answer in self.dump(RTM_GETADDR, struct.pack("=BBBBI", FAMILIES[version], 0, 0, 0, 0)):
                (index,) = struct.unpack_from("=I", answer, 4)
                found = attributes(answer[8:])
                if address := found.get(IFA_LOCAL) or found.get(IFA_ADDRESS):
                    out.add((index, address))
        return out

    def routes(self, versions: Collection[int] = (4, 6)) -> set[tuple[int, bytes, int]]:
        """(link index, packed destination, prefix length) of all routes of the main table, for these versions of IP; a default
        route's destination is b""."""
        out = set()
        for version in versions:
            for answer in self.dump(RTM_GETROUTE, struct.pack("=BBBBBBBBI", FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)):
                length, table = answer[1], answer[4]
                found = attributes(answer[12:])
                if table == RT_TABLE_MAIN and RTA_OIF in found:
                    out.add((struct.unpack("=I", found[RTA_OIF])[0], found.get(RTA_DST, b""), length))
        return out

    def index(self, name: str) -> int:
        """The index of link *name*, 0 where there is none."""
        self._sequence += 1
        payload = ifinfo() + text(IFLA_IFNAME, name)
        self._socket.send(struct.pack("=IHHII", 16 + len(payload), RTM_GETLINK, F_REQUEST, self._sequence, 0) + payload)
        data = self._socket.recv(1 << 16)
        _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
        return 0 if kind == NLMSG_ERROR else int(struct.unpack_from("=i", data, 20)[0])


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind; the bits that say "nested" and "network order" are left off."""
    out, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        out[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return out


def _parse_link(data: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", data, 4)
    found = attributes(data[16:])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    own = attributes(info.get(IFLA_INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(),
        up=bool(flags & IFF_UP),
        mtu=struct.unpack("=I", found[IFLA_MTU])[0],
        kind=kind,
        master=struct.unpack("=I", found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
        vni=struct.unpack("=I", own[IFLA_VXLAN_ID])[0] if own else 0,
        port=struct.unpack("!H", own[IFLA_VXLAN_PORT])[0] if own else 0,
        local=own.get(IFLA_VXLAN_LOCAL) or own.get(IFLA_VXLAN_LOCAL6) or b"",
    )


def _parse_neighbour(data: bytes) -> tuple[int, int, int, str, bytes]:
    index, state, flags = struct.unpack_from("=iHB", data, 4)
    found = attributes(data[12:])
    hardware = found.get(NDA_LLADDR, b"")
    return index, state, flags, hardware.hex(":") if len(hardware) == 6 else "", found.get(NDA_DST, b"")


def monitor() -> socket.socket:
    """A non-blocking socket that becomes readable when a link, an address, a route, an FDB entry or a neighbour of this
    namespace changes."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    sock.bind((0, RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE))
    return sock


def ruleset_monitor() -> socket.socket:
    """A non-blocking socket that hears of each change of nftables rules; `transactions` reads it."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    with contextlib.suppress(PermissionError):
        # each element of a transaction is told: those of 5,000 services at once are not to be taken for ones that were missed
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    sock.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
    return sock


def transactions(sock: socket.socket) -> int:
    """How many transactions changed nftables rules since the last call; a huge number where some were missed.

    Whose they were cannot be asked: the kernel names their processes by PIDs of its first namespace."""
    count = 0
    while True:
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            return count
        except OSError:  # ENOBUFS
            count += 1 << 30
            continue
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            count += kind == NFT_MSG_NEWGEN
            offset += max(16, (length + 3) & ~3)


def _batch_end(kind: int) -> bytes:
    """The message before or behind a transaction of nf_tables."""
    return struct.pack("=IHHII", 20, kind, F_REQUEST, 0, 0) + struct.pack("!BBH", socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)


def _extended(message: bytes, flags: int) -> str:
    """The kernel's own sentence from an extended acknowledgement (NLMSGERR_ATTR_MSG), "" where it gave none."""
    if not flags & 0x200:
        return ""
    offset = 20 + 16 if flags & 0x100 else 20 + struct.unpack_from("=I", message, 20)[0]
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == 1:
            return message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
