"""DNS packets that are none, or that ask for more than one container may have."""

from __future__ import annotations

import struct

import pytest

from netplugins.resolver import message
from netplugins.resolver.server import CACHED_QUESTIONS, LONGEST, AnswerCache
from netplugins.resolver.table import Names, View


def packet(name: bytes = b"\3web\0", *, flags: int = 0x0100, count: int = 1, kind: int = message.A, klass: int = 1) -> bytes:
    return struct.pack("!6H", 0x1234, flags, count, 0, 0, 0) + name + struct.pack("!HH", kind, klass)


REFUSED = {
    "no question": (packet(count=0), message.FORMERR),
    "two questions": (packet(count=2), message.FORMERR),
    "a name that ends nowhere": (packet()[:14], message.FORMERR),
    "a compressed name": (packet(b"\xc0\x0c"), message.FORMERR),
    "a name of 300 bytes": (packet((b"\x3b" + b"a" * 59) * 5 + b"\0"), message.FORMERR),
    "an update": (packet(flags=0x2800), message.NOTIMP),
    "the class CHAOS": (packet(klass=3), message.REFUSED),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused(data: bytes, code: int) -> None:
    with pytest.raises(message.MalformedError) as caught:
        message.parse(data)
    assert caught.value.code == code
    said = message.refusal(data, caught.value.code)
    assert said is not None
    assert len(said) == 12
    assert said[:2] == data[:2]
    assert said[2] & 0x80
    assert said[3] & 0x0F == code
    assert said[4:] == bytes(8)


@pytest.mark.parametrize("data", [b"", packet()[:11], packet(flags=0x8180)], ids=["nothing", "half a header", "an answer"])
def test_what_gets_no_answer(data: bytes) -> None:
    """Two servers that answer each other's answers would never end."""
    assert message.refusal(data, message.FORMERR) is None


def test_an_answer_to_something_else_is_none() -> None:
    asked = packet()
    question = message.parse(asked)
    good = asked[:2] + b"\x81\x80" + asked[4:]
    assert message.answers(good, asked, question)
    assert message.answers(good.replace(b"web", b"WEB"), asked, question)
    assert message.answers(asked[:2] + b"\x81\x85" + bytes(8), asked, question), "a refusal repeats no question"
    assert not message.answers(good.replace(b"web", b"wib"), asked, question)
    assert not message.answers(b"\0\0" + good[2:], asked, question)
    assert not message.answers(asked, asked, question), "a question is no answer"
    assert not message.answers(good[:8], asked, question)


def test_a_name_that_dns_has_no_room_for_is_not_told() -> None:
    """The name of a network can be as long as anybody likes: asking who has an address was an exception."""
    names = Names({"n" * 300: {"web": ("10.0.0.9",)}})
    asked = packet(message.encode_name("9.0.0.10.in-addr.arpa"), kind=message.PTR)
    reply = names.answer(asked, message.parse(asked), ["n" * 300], ttl=0, tcp=False)
    assert reply is not None
    assert reply[3] & 0x0F == message.NXDOMAIN


def test_what_one_container_has_remembered_is_bounded() -> None:
    said = AnswerCache()
    said.bind(Names({}), View(netns=""))
    for number in range(CACHED_QUESTIONS * 3):
        asked = struct.pack("!HH", 1, number) + b"x" * (LONGEST - 4)
        said.put(asked, asked)
    long = b"y" * (LONGEST + 1)
    said.put(long, long)
    assert said.get(long) is None
    assert len(said) <= CACHED_QUESTIONS
