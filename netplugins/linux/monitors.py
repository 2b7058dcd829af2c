"""Sockets that report changes in this network namespace: of links, addresses, routes and neighbours, and of nftables rules."""

from __future__ import annotations

import contextlib
import socket
import struct

from netplugins.linux import uapi

_KIND = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_LINK_GROUPS = uapi.RTMGRP_LINK | uapi.RTMGRP_NEIGH
_IPV4_GROUPS = uapi.RTMGRP_IPV4_IFADDR | uapi.RTMGRP_IPV4_ROUTE
_IPV6_GROUPS = uapi.RTMGRP_IPV6_IFADDR | uapi.RTMGRP_IPV6_ROUTE
_NEW_GENERATION = uapi.NFNL_SUBSYS_NFTABLES << 8 | uapi.NFT_MSG_NEWGEN


def monitor() -> socket.socket:
    """A non-blocking socket that becomes readable when a link, an address, a route, an FDB entry or a neighbour changes."""
    sock = socket.socket(socket.AF_NETLINK, _KIND, socket.NETLINK_ROUTE)
    sock.bind((0, _LINK_GROUPS | _IPV4_GROUPS | _IPV6_GROUPS))
    return sock


def ruleset_monitor() -> socket.socket:
    """A non-blocking socket that receives each change of nftables rules; `transactions` reads it."""
    sock = socket.socket(socket.AF_NETLINK, _KIND, uapi.NETLINK_NETFILTER)
    with contextlib.suppress(PermissionError):
        # each element of a transaction is an event: those of 5,000 services at once must not look like missed ones
        sock.setsockopt(socket.SOL_SOCKET, uapi.SO_RCVBUFFORCE, 64 << 20)
    sock.bind((0, 1 << (uapi.NFNLGRP_NFTABLES - 1)))
    return sock


def transactions(sock: socket.socket) -> int:
    """How many transactions changed nftables rules since the last call; at least 2^30 where events were missed.

    They carry no sender that helps: the kernel names processes by their PIDs in its first namespace."""
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
            count += kind == _NEW_GENERATION
            offset += max(16, (length + 3) & ~3)
