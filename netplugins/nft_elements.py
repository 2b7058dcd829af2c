"""Elements of nftables' sets and maps, added and deleted over netlink.

nft(8) reads a whole map before it changes one element: with 5,000 services that takes a hundred times as long as the
change itself. Source: linux/netfilter/nf_tables.h (enum nft_set_elem_attributes), linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from netplugins.linux import uapi
from netplugins.linux.netlink import Message, attribute, mac_bytes, packed, text

_ADD = uapi.NFNL_SUBSYS_NFTABLES << 8 | uapi.NFT_MSG_NEWSETELEM
_DELETE = uapi.NFNL_SUBSYS_NFTABLES << 8 | uapi.NFT_MSG_DELSETELEM
_ELEMENT = uapi.NFTA_LIST_ELEM | uapi.NLA_F_NESTED
_KEY, _DATA = uapi.NFTA_SET_ELEM_KEY | uapi.NLA_F_NESTED, uapi.NFTA_SET_ELEM_DATA | uapi.NLA_F_NESTED
FAMILIES = {"inet": uapi.NFPROTO_INET, "bridge": uapi.NFPROTO_BRIDGE}
BATCH_SIZE = 500
"""Elements in one message: the attribute that lists them holds 64 KiB."""

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}

FIELDS: dict[str, Callable[[str], bytes]] = {
    "ipv4_addr": packed,
    "ipv6_addr": packed,
    "ifname": lambda name: name.strip('"').encode().ljust(16, b"\0"),
    "ether_addr": mac_bytes,
    "bytes16": lambda number: int(number, 16).to_bytes(16, "big"),
    "inet_proto": lambda name: bytes([PROTOCOLS[name]]),
    "inet_service": lambda port: struct.pack("!H", int(port)),
    "integer": lambda number: struct.pack("=I", int(number)),  # of `numgen`, in the host's order
}


class ElementType(msgspec.Struct, frozen=True):
    """The fields of a map's keys and values, by nft's names of types (`bytes16` is ours); a set has no values."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    family: str = "inet"
    """The family of its table, of FAMILIES."""

    def encode(self, element: str) -> bytes:
        """The attribute of *element*, which is written as in nft: `1.2.3.4 . 80 : 10.0.0.2 . 8080`."""
        key, _, value = element.partition(" : ")
        out = _data(_KEY, self.key, key)
        return attribute(_ELEMENT, out + _data(_DATA, self.value, value) if self.value else out)


def _data(kind: int, fields: tuple[str, ...], words: str) -> bytes:
    parts = [FIELDS[field](word) for field, word in zip(fields, words.split(" . "), strict=True)]
    if len(parts) > 1:  # in a concatenation each begins at a register of four bytes
        parts = [part + b"\0" * (-len(part) % 4) for part in parts]
    return attribute(kind, attribute(uapi.NFTA_DATA_VALUE, b"".join(parts)))


def add(table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    """Messages that add *elements* to the set or map *name* of *table*; for `netlink.Socket.transact`."""
    return _messages(_ADD, uapi.NLM_F_CREATE, table, name, shape, elements)


def delete(table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    """Messages that delete *elements*, as `add` adds them."""
    return _messages(_DELETE, 0, table, name, shape, elements)


def _messages(kind: int, flags: int, table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    head = struct.pack("=BBH", FAMILIES[shape.family], 0, 0) + text(uapi.NFTA_SET_ELEM_LIST_TABLE, table)
    head += text(uapi.NFTA_SET_ELEM_LIST_SET, name)
    rest = iter(elements)
    while some := b"".join(map(shape.encode, islice(rest, BATCH_SIZE))):
        yield Message(
            kind, flags, head + attribute(uapi.NFTA_SET_ELEM_LIST_ELEMENTS | uapi.NLA_F_NESTED, some), f"elements of {name}"
        )
