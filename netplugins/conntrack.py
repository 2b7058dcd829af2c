"""Connection tracking: flows that an earlier ruleset translated, and that must end.

A rule decides for the first packet of a flow; the kernel treats the others alike for as long as they come. So a UDP client
that goes on sending would never reach a container that replaced another, nor a port that was published after its first packet.
Source: linux/netfilter/nfnetlink_conntrack.h; conntrack(8), whose program is not needed.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Set

import msgspec

from netplugins.linux import netlink, uapi

_GET = uapi.NFNL_SUBSYS_CTNETLINK << 8 | uapi.IPCTNL_MSG_CT_GET
_DELETE = uapi.NFNL_SUBSYS_CTNETLINK << 8 | uapi.IPCTNL_MSG_CT_DELETE


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: *destination* and *port* (0 for none) of its first packet, *answers* the source address of replies.
    *family* is AF_INET or AF_INET6, *protocol* as in IP headers; *key* are the attributes that name the entry."""

    family: int
    protocol: int
    destination: str
    port: int
    answers: str
    key: bytes


def flows(sock: netlink.Socket) -> list[Flow]:
    """All flows of the network namespace of *sock*, a socket of NETLINK_NETFILTER."""
    out = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for data in sock.dump(_GET, struct.pack("=BBH", family, 0, 0)):
            found = netlink.attributes(data[4:])
            if uapi.CTA_TUPLE_ORIG in found and uapi.CTA_TUPLE_REPLY in found:
                out.append(_flow(family, found))
    return out


def _flow(family: int, found: dict[int, bytes]) -> Flow:
    first, answer = netlink.attributes(found[uapi.CTA_TUPLE_ORIG]), netlink.attributes(found[uapi.CTA_TUPLE_REPLY])
    to, back = netlink.attributes(first[uapi.CTA_TUPLE_IP]), netlink.attributes(answer[uapi.CTA_TUPLE_IP])
    proto = netlink.attributes(first[uapi.CTA_TUPLE_PROTO])
    port = proto.get(uapi.CTA_PROTO_DST_PORT)
    key = netlink.attribute(uapi.CTA_TUPLE_ORIG | uapi.NLA_F_NESTED, found[uapi.CTA_TUPLE_ORIG])
    for kind in (uapi.CTA_ID, uapi.CTA_ZONE):
        if kind in found:
            key += netlink.attribute(kind, found[kind])
    source, goal = (
        (uapi.CTA_IP_V4_SRC, uapi.CTA_IP_V4_DST) if family == socket.AF_INET else (uapi.CTA_IP_V6_SRC, uapi.CTA_IP_V6_DST)
    )
    return Flow(
        family=family,
        protocol=proto[uapi.CTA_PROTO_NUM][0],
        destination=socket.inet_ntop(family, to[goal]),
        port=struct.unpack("!H", port)[0] if port else 0,
        answers=socket.inet_ntop(family, back[source]),
        key=key,
    )


def delete_flows(sock: netlink.Socket, is_stale: Callable[[Flow], bool]) -> int:
    """Delete the flows that are stale. Returns how many. *sock* is a socket of NETLINK_NETFILTER. Raises NetworkError."""
    stale = [flow for flow in flows(sock) if is_stale(flow)]
    sock.run(
        [
            netlink.Message(_DELETE, 0, struct.pack("=BBH", flow.family, 0, 0) + flow.key, "delete a connection")
            for flow in stale
        ],
        ignore=frozenset({errno.ENOENT}),
    )
    return len(stale)


class Targets(msgspec.Struct, frozen=True):
    """The backends of a ruleset: (protocol, port) → addresses; port 0 for a service's own address."""

    by_port: dict[tuple[str, int], frozenset[str]] = {}

    @property
    def addresses(self) -> Set[str]:
        """All backends."""
        return frozenset().union(*self.by_port.values())


def stale_flow_filter(before: Targets, now: Targets, alive: Set[str]) -> Callable[[Flow], bool] | None:
    """Which flows the change from *before* to *now* makes stale; None if it makes none.

    Stale are flows whose replies come from a former backend that no endpoint is now (not *alive*), and UDP flows to a port
    with other backends now, or from a former backend. TCP connections to a living endpoint end by themselves."""
    gone = before.addresses - now.addresses
    moved = {
        port
        for protocol, port in before.by_port.keys() | now.by_port.keys()
        if protocol == "udp" and port and before.by_port.get((protocol, port)) != now.by_port.get((protocol, port))
    }
    if not gone and not moved:
        return None

    def is_stale(flow: Flow) -> bool:
        if flow.answers in gone and flow.answers not in alive:
            return True
        if flow.protocol != socket.IPPROTO_UDP:
            return False
        return flow.answers in gone or (flow.port in moved and flow.answers not in now.by_port.get(("udp", flow.port), ()))

    return is_stale
