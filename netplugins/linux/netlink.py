"""Netlink: attributes, messages in batches, and a socket that sends them and reads dumps.

A whole endpoint is seven messages. pyroute2 spends 0.2-0.8 ms on each, this codec a few microseconds; so everything that
each container needs goes through here. pyroute2 speaks the families that are rarely used.
Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Sequence

import msgspec

from netplugins.errors import NetworkError
from netplugins.linux import uapi

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
"""Version of IP → address family."""


def attribute(kind: int, data: bytes) -> bytes:
    """One rtattr: length, type, value, padded to four bytes."""
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute of a string, which ends with a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in the host's byte order."""
    return attribute(kind, struct.pack("=I", value))


def packed(address: str) -> bytes:
    """The 4 or 16 bytes of an IP address. `ipaddress` takes ten times as long, which counts for thousands."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def mac_bytes(mac: str) -> bytes:
    """The 6 bytes of a hardware address."""
    return bytes.fromhex(mac.replace(":", ""))


def ifinfo(index: int = 0, *, up: bool | None = None) -> bytes:
    """struct ifinfomsg; *up* None leaves the flag as it is."""
    flags, change = (0, 0) if up is None else (uapi.IFF_UP if up else 0, uapi.IFF_UP)
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


class Message(tuple[int, int, bytes, str]):
    """(type, flags, payload, what): an error's text begins with *what*."""

    def __new__(cls, kind: int, flags: int, payload: bytes, what: str) -> Message:
        """A message of the type *kind*, with its header's *flags*."""
        return super().__new__(cls, (kind, flags, payload, what))


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the kernel shows it: *mtu* in bytes; *master* an index, 0 for none; the last three of a VXLAN device."""

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
"""Messages in a batch: even where the kernel refuses each, its answers fit the receive buffer."""


class Socket:
    """A netlink socket of the network namespace of the thread that creates it. Blocking, for worker threads."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_EXT_ACK, 1)  # errors come with a sentence
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket; it is also a context manager."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, messages: Sequence[Message], *, ignore: frozenset[int] = frozenset()) -> None:
        """Send all *messages* and wait for the kernel's answers. Raises the first failure whose errno is not in *ignore* as
        NetworkError; later messages are sent all the same."""
        failure: NetworkError | None = None
        for start in range(0, len(messages), BATCH_SIZE):
            failure = self._batch(messages[start : start + BATCH_SIZE], ignore) or failure
        if failure:
            raise failure

    def transact(self, messages: Sequence[Message]) -> None:
        """Send messages of nf_tables as one transaction. Raises NetworkError; the kernel then changes nothing.

        Source: linux/netfilter/nfnetlink.h, NFNL_MSG_BATCH_BEGIN."""
        begin, end = _batch_end(uapi.NFNL_MSG_BATCH_BEGIN), _batch_end(uapi.NFNL_MSG_BATCH_END)
        if failure := self._batch(messages, frozenset(), begin, end):
            raise failure

    def _batch(
        self, messages: Sequence[Message], ignore: frozenset[int], begin: bytes = b"", end: bytes = b""
    ) -> NetworkError | None:
        """Only the last asks for an acknowledgement: the kernel works in order, and reports failures without."""
        first, last = self._sequence + 1, self._sequence + len(messages)
        self._sequence = last
        packet = [begin]
        for number, (kind, flags, payload, _) in enumerate(messages, first):
            flags |= uapi.NLM_F_REQUEST | uapi.NLM_F_ACK if number == last else uapi.NLM_F_REQUEST
            packet += _NLMSGHDR(16 + len(payload), kind, flags, number, 0), payload
        self._socket.send(b"".join([*packet, end]))
        failure = None
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                if kind == uapi.NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + 16)
                    if code and -code not in ignore and failure is None:
                        reason = _extended(data[offset : offset + length], flags) or os.strerror(-code)
                        what = messages[sequence - first][3] if first <= sequence <= last else ""
                        failure = NetworkError(f"{what}: {reason} ({errno.errorcode.get(-code, -code)})", -code)
                    if sequence == last:
                        return failure
                offset += (length + 3) & ~3

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """The payloads of all answers to a dump request of *kind*."""
        self._sequence += 1
        head = _NLMSGHDR(16 + len(payload), kind, uapi.NLM_F_REQUEST | uapi.NLM_F_DUMP, self._sequence, 0)
        self._socket.send(head + payload)
        out: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                if answer in (uapi.NLMSG_DONE, uapi.NLMSG_ERROR):
                    return out
                if sequence == self._sequence:
                    out.append(data[offset + 16 : offset + length])
                offset += (length + 3) & ~3

    def neighbours(self, family: int) -> list[tuple[int, int, int, str, bytes]]:
        """All entries of *family* (AF_BRIDGE: the FDB): (link index, state, flags, MAC, packed address or b"")."""
        payload = struct.pack("=BxxxiHBB", family, 0, 0, 0, 0)
        if family == uapi.AF_BRIDGE:  # the FDB's dump takes an ifinfomsg
            payload = bytes([uapi.AF_BRIDGE]) + ifinfo()[1:]
        return [_parse_neighbour(answer) for answer in self.dump(uapi.RTM_GETNEIGH, payload)]

    def links(self) -> list[Link]:
        """All links of this namespace."""
        return [_parse_link(answer) for answer in self.dump(uapi.RTM_GETLINK, ifinfo())]

    def addresses(self, versions: Collection[int] = (4, 6)) -> set[tuple[int, bytes]]:
        """(link index, packed address) of all addresses of these *versions* of IP."""
        out = set()
        for version in versions:
            for answer in self.dump(uapi.RTM_GETADDR, struct.pack("=BBBBI", FAMILIES[version], 0, 0, 0, 0)):
                (index,) = struct.unpack_from("=I", answer, 4)
                found = attributes(answer[8:])
                if address := found.get(uapi.IFA_LOCAL) or found.get(uapi.IFA_ADDRESS):
                    out.add((index, address))
        return out

    def routes(self, versions: Collection[int] = (4, 6)) -> set[tuple[int, bytes, int]]:
        """(link index, packed destination, prefix length) of all routes of the main table, for these *versions* of IP; a
        default route's destination is all zeros."""
        out = set()
        for version in versions:
            any_ = bytes(4 if version == 4 else 16)
            for answer in self.dump(uapi.RTM_GETROUTE, struct.pack("=BBBBBBBBI", FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)):
                length, table = answer[1], answer[4]
                found = attributes(answer[12:])
                if table == uapi.RT_TABLE_MAIN and uapi.RTA_OIF in found:
                    out.add((struct.unpack("=I", found[uapi.RTA_OIF])[0], found.get(uapi.RTA_DST, any_), length))
        return out

    def index(self, name: str) -> int:
        """The index of link *name*, 0 if there is none."""
        self._sequence += 1
        payload = ifinfo() + text(uapi.IFLA_IFNAME, name)
        self._socket.send(_NLMSGHDR(16 + len(payload), uapi.RTM_GETLINK, uapi.NLM_F_REQUEST, self._sequence, 0) + payload)
        data = self._socket.recv(1 << 16)
        _, kind, _, _, _ = struct.unpack_from("=IHHII", data)
        return 0 if kind == uapi.NLMSG_ERROR else int(struct.unpack_from("=i", data, 20)[0])


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind, without the flags for "nested" and "network byte order"."""
    out, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        out[kind & uapi.NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return out


def _parse_link(data: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", data, 4)
    found = attributes(data[16:])
    info = attributes(found.get(uapi.IFLA_LINKINFO, b""))
    kind = info.get(uapi.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    own = attributes(info.get(uapi.IFLA_INFO_DATA, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=found[uapi.IFLA_IFNAME].rstrip(b"\0").decode(),
        up=bool(flags & uapi.IFF_UP),
        mtu=struct.unpack("=I", found[uapi.IFLA_MTU])[0],
        kind=kind,
        master=struct.unpack("=I", found[uapi.IFLA_MASTER])[0] if uapi.IFLA_MASTER in found else 0,
        vni=struct.unpack("=I", own[uapi.IFLA_VXLAN_ID])[0] if own else 0,
        port=struct.unpack("!H", own[uapi.IFLA_VXLAN_PORT])[0] if own else 0,
        local=own.get(uapi.IFLA_VXLAN_LOCAL) or own.get(uapi.IFLA_VXLAN_LOCAL6) or b"",
    )


def _parse_neighbour(data: bytes) -> tuple[int, int, int, str, bytes]:
    index, state, flags = struct.unpack_from("=iHB", data, 4)
    found = attributes(data[12:])
    hardware = found.get(uapi.NDA_LLADDR, b"")
    return index, state, flags, hardware.hex(":") if len(hardware) == 6 else "", found.get(uapi.NDA_DST, b"")


def _batch_end(kind: int) -> bytes:
    """The message that begins or ends a transaction of nf_tables."""
    subsystem = struct.pack("!BBH", socket.AF_UNSPEC, 0, uapi.NFNL_SUBSYS_NFTABLES)
    return _NLMSGHDR(16 + len(subsystem), kind, uapi.NLM_F_REQUEST, 0, 0) + subsystem


def _extended(message: bytes, flags: int) -> str:
    """The kernel's own sentence from an extended acknowledgement (NLMSGERR_ATTR_MSG), "" if it gave none."""
    if not flags & uapi.NLM_F_ACK_TLVS:
        return ""
    offset = 20 + 16 if flags & uapi.NLM_F_CAPPED else 20 + struct.unpack_from("=I", message, 20)[0]
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == uapi.NLMSGERR_ATTR_MSG:
            return message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
