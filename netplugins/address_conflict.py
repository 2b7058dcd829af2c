"""Whether another host of a LAN has an address already: ARP probes (RFC 5227) and neighbour solicitations (RFC 4862 §5.4).

The waits are shorter than the RFCs': a container's start is not a laptop that joins a slow radio, and the plan gives each
address once. The probes look for other machines: a router, a printer, a server with a static address.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import msgspec

from netplugins.linux import netns
from netplugins.linux.checksum import checksum
from netplugins.linux.uapi import (
    ARPHRD_ETHER,
    ARPOP_REQUEST,
    ETH_P_ALL,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    ND_NEIGHBOR_ADVERT,
    ND_NEIGHBOR_SOLICIT,
)

PROBES, APART_S, WAIT_S = 3, 0.06, 0.25
BROADCAST = b"\xff" * 6


class AddressProbe(msgspec.Struct, frozen=True):
    """A probe for *address* (no prefix length), which *interface* in the namespace *path* is to get."""

    path: str
    interface: str
    address: str


def conflicts(claims: Sequence[AddressProbe]) -> dict[AddressProbe, str]:
    """Those of *claims* whose address another host has → its hardware address. Sends all at once; takes 0.25 s. Raises
    OSError."""
    found: dict[AddressProbe, str] = {}
    with ExitStack() as stack:
        sockets = {stack.enter_context(_open(claim)): claim for claim in claims}
        started = time.monotonic()
        for number in range(PROBES):
            for sock, claim in sockets.items():
                sock.send(_probe(claim, _own(sock)))
            last = number == PROBES - 1
            _listen(sockets, found, started + (WAIT_S if last else (number + 1) * APART_S))
    return found


def announce(claims: Iterable[AddressProbe]) -> None:
    """Announce the addresses to the LAN, so that no switch and no neighbour keeps an older entry. Raises OSError."""
    for claim in claims:
        if ":" not in claim.address:
            with _open(claim) as sock:
                sock.send(_arp(claim, _own(sock), sender=socket.inet_aton(claim.address)))


def _open(claim: AddressProbe) -> socket.socket:
    def body() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        try:
            sock.bind((claim.interface, ETH_P_ALL))
        except OSError:
            sock.close()
            raise
        return sock

    return netns.enter(claim.path, body)


def _own(sock: socket.socket) -> bytes:
    """The hardware address of the link that *sock* is bound to."""
    found: bytes = sock.getsockname()[4]
    return found


def _probe(claim: AddressProbe, own: bytes) -> bytes:
    return _solicitation(claim, own) if ":" in claim.address else _arp(claim, own, sender=b"\0" * 4)


def _arp(claim: AddressProbe, own: bytes, *, sender: bytes) -> bytes:
    """A request for the address: a probe with the sender 0.0.0.0, an announcement with the address itself as sender."""
    head = BROADCAST + own + struct.pack("!H", ETH_P_ARP)
    head += struct.pack("!HHBBH", ARPHRD_ETHER, ETH_P_IP, 6, 4, ARPOP_REQUEST)
    return head + own + sender + b"\0" * 6 + socket.inet_aton(claim.address)


def _solicitation(claim: AddressProbe, own: bytes) -> bytes:
    target = socket.inet_pton(socket.AF_INET6, claim.address)
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    body = struct.pack("!BBHI", ND_NEIGHBOR_SOLICIT, 0, 0, 0) + target
    pseudo = b"\0" * 16 + group + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + b"\0" * 16 + group + body
    return b"\x33\x33" + group[12:] + own + struct.pack("!H", ETH_P_IPV6) + packet


def _listen(sockets: dict[socket.socket, AddressProbe], found: dict[AddressProbe, str], until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        for sock in select.select(list(sockets), [], [], left)[0]:
            claim = sockets[sock]
            try:
                frame = sock.recv(2048)
            except BlockingIOError:
                continue
            if (owner := _answer(frame, claim)) and owner != _own(sock).hex(":"):
                found[claim] = owner


def _answer(frame: bytes, claim: AddressProbe) -> str:
    """The hardware address of the host that has the address, or probes for it too, by *frame*; "" for any other frame."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == ETH_P_ARP and ":" not in claim.address and len(frame) >= 42:
        sender, asked = frame[28:32], frame[38:42]
        wanted = socket.inet_aton(claim.address)
        if sender == wanted or (sender == b"\0" * 4 and asked == wanted):
            return frame[22:28].hex(":")
    if (
        kind == ETH_P_IPV6
        and ":" in claim.address
        and len(frame) >= 78
        and frame[20] == socket.IPPROTO_ICMPV6
        and frame[54] == ND_NEIGHBOR_ADVERT
        and ipaddress.IPv6Address(frame[62:78]) == ipaddress.IPv6Address(claim.address)
    ):
        return frame[6:12].hex(":")
    return ""
