"""BuildKit's messages are what Protocol Buffers' own library makes of them, and nothing else is an error of another kind."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from agent.buildkit import messages, wire
from agent.errors import BadRequestError

TEXTS = st.text(max_size=12)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
STATS = st.builds(
    messages.Stat, path=TEXTS, mode=NUMBERS, size=NUMBERS, mtime=NUMBERS, xattrs=st.dictionaries(TEXTS, st.binary(max_size=9))
)


@given(st.builds(messages.Packet, type=st.integers(0, 4), stat=st.none() | STATS, id=NUMBERS, data=st.binary(max_size=40)))
def test_what_is_written_is_read(packet: messages.Packet) -> None:
    assert wire.decode(wire.encode(packet), messages.Packet) == packet


@given(
    st.builds(
        messages.SolveRequest,
        ref=TEXTS,
        attributes=st.dictionaries(TEXTS, TEXTS),
        entitlements=st.lists(TEXTS).map(tuple),
        exporters=st.lists(st.builds(messages.CacheEntry, type=TEXTS, attributes=st.dictionaries(TEXTS, TEXTS))).map(tuple),
    )
)
def test_lists_and_tables(request: messages.SolveRequest) -> None:
    assert wire.decode(wire.encode(request), messages.SolveRequest) == request


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_a_bad_request(data: bytes) -> None:
    try:
        wire.decode(data, messages.SolveRequest)
        wire.decode(data, messages.Packet)
    except BadRequestError:
        pass


def test_the_library_reads_the_same() -> None:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    kind = file.message_type.add(name="Stat")
    for name, number, of in (("path", 1, field.TYPE_STRING), ("mode", 2, field.TYPE_UINT32), ("mtime", 6, field.TYPE_INT64)):
        kind.field.add(name=name, number=number, type=of, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Stat"))
    stat = messages.Stat(path="ä/b", mode=0o755 | 1 << 31, mtime=-3, uid=7)
    read: Any = made.FromString(wire.encode(stat))
    assert (read.path, read.mode, read.mtime) == ("ä/b", 0o755 | 1 << 31, -3)
    assert wire.decode(made(**{"path": "x", "mtime": -1}).SerializeToString(), messages.Stat) == messages.Stat(
        path="x", mtime=-1
    )


def test_nesting_has_an_end() -> None:
    data = b""
    for _ in range(wire.DEEPEST + 2):
        data = b"\x0a" + wire.varint(len(data)) + data
    with pytest.raises(BadRequestError, match="nested too deeply"):
        wire.decode(data, Nested)


class Nested(wire.Message):
    inner: Annotated[Nested | None, 1] = None
