"""DNS messages, as far as a stub server needs them: parse one question, build an answer.

Source: RFC 1035 §4.1, RFC 6891 (EDNS). Names compare without case. Written by hand because the fast path answers more
than 100,000 queries a second in plain Python, which a general library does not.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import msgspec

A, NS, PTR, MX, TXT, AAAA, SRV, OPT, ANY = 1, 2, 12, 15, 16, 28, 33, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
IN = 1


class MalformedError(Exception):
    """Not a query that can be answered, not even with an error."""


class Question(msgspec.Struct, frozen=True):
    """*name* is lower case and without the final dot; *end* is where the question section ends; *size* is the largest
    UDP answer that the client takes."""

    id: int
    flags: int
    name: str
    kind: int
    end: int
    size: int


def parse(packet: bytes) -> Question:
    """The first question of *packet*. Raises MalformedError."""
    try:
        ident, flags, questions, _, _, additional = struct.unpack_from("!6H", packet)
        if questions != 1 or flags & 0x8000:
            raise MalformedError("not a query with one question")
        labels = []
        offset = 12
        while length := packet[offset]:
            if length > 63:
                raise MalformedError("a compressed name in a question")
            labels.append(packet[offset + 1 : offset + 1 + length])
            offset += length + 1
        kind, klass = struct.unpack_from("!HH", packet, offset + 1)
        end = offset + 5
        size = 512
        if additional and len(packet) >= end + 5 and packet[end] == 0:
            code, payload = struct.unpack_from("!HH", packet, end + 1)
            if code == OPT:
                size = max(512, payload)
    except (struct.error, IndexError) as error:
        raise MalformedError(str(error)) from error
    if klass not in (IN, 255):
        raise MalformedError("a class that is not IN")
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Question(ident, flags, name, kind, end, size)


def encode_name(name: str) -> bytes:
    out = b""
    for label in name.rstrip(".").split("."):
        if label:
            out += bytes([len(label)]) + label.encode("ascii", "replace")
    return out + b"\0"


def answer(
    packet: bytes, question: Question, records: Sequence[tuple[int, bytes]], *, code: int = NOERROR, ttl: int = 0,
    tcp: bool = False,
) -> bytes:
    """The answer to *packet*; over UDP cut to the client's size, with the truncation bit set, so that it asks by TCP."""
    body = b"".join(struct.pack("!HHHIH", 0xC00C, kind, IN, ttl, len(data)) + data for kind, data in records)
    flags = 0x8480 | (question.flags & 0x0100) | code  # response, authoritative, recursion available
    head = packet[12 : question.end]
    edns = b"\0" + struct.pack("!HHIH", OPT, 4096, 0, 0) if question.size > 512 else b""
    limit = 65535 if tcp else question.size
    count = len(records)
    if 12 + len(head) + len(body) + len(edns) > limit:
        flags |= 0x0200
        body, count = b"", 0
    return struct.pack("!6H", question.id, flags, 1, count, 0, 1 if edns else 0) + head + body + edns


def address_record(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address)
    return (A if parsed.version == 4 else AAAA), parsed.packed


def reverse_name(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer
