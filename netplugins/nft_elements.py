"""Elements of nftables' sets and maps, taken out and put in over netlink.

nft(8) reads a whole map before it changes one element of it: with 5,000 services that takes a hundred times as long as the
change. Source: linux/netfilter/nf_tables.h (enum nft_set_elem_attributes), linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from netplugins.netlink import F_CREATE, Message, attribute, mac_bytes, packed, text

NEWSETELEM, DELSETELEM = 0x0A0C, 0x0A0E  # NFNL_SUBSYS_NFTABLES, NFT_MSG_*
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT, KEY, DATA, VALUE = 1, 1, 2, 1
NESTED = 0x8000
FAMILIES = {"inet": 1, "bridge": 7}  # NFPROTO_*
BATCH_SIZE = 500
"""Elements in one message: a list of them has 64 KiB."""

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

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
    """What the keys and the values of a map consist of, by nft's names of types (`bytes16` is ours); a set has no values."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    family: str = "inet"
    """Of the table that it is in."""

    def encode(self, element: str) -> bytes:
        """`1.2.3.4 . 80 : 10.0.0.2 . 8080`, as nft writes it, for the kernel."""
        key, _, value = element.partition(" : ")
        out = _data(KEY, self.key, key)
        return attribute(ELEMENT | NESTED, out + _data(DATA, self.value, value) if self.value else out)


def _data(kind: int, fields: tuple[str, ...], words: str) -> bytes:
    parts = [FIELDS[field](word) for field, word in zip(fields, words.split(" . "), strict=True)]
    if len(parts) > 1:  # in a concatenation each begins at a register of four bytes
        parts = [part + b"\0" * (-len(part) % 4) for part in parts]
    return attribute(kind | NESTED, attribute(VALUE, b"".join(parts)))


def add(table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    """Messages that put *elements* into the set or map *name* of *table*; parts of a transaction."""
    return _messages(NEWSETELEM, F_CREATE, table, name, shape, elements)


def delete(table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    return _messages(DELSETELEM, 0, table, name, shape, elements)


def _messages(kind: int, flags: int, table: str, name: str, shape: ElementType, elements: Iterable[str]) -> Iterator[Message]:
    head = struct.pack("=BBH", FAMILIES[shape.family], 0, 0) + text(LIST_TABLE, table) + text(LIST_SET, name)
    rest = iter(elements)
    while some := b"".join(map(shape.encode, islice(rest, BATCH_SIZE))):
        yield Message(kind, flags, head + attribute(LIST_ELEMENTS | NESTED, some), f"elements of {name}")
