"""Protocol Buffers' wire format for the few messages of BuildKit's that are spoken here.

A message is a struct whose fields are annotated with their numbers: `path: Annotated[str, 1] = ""`. A field is an integer of
64 bits (in two's complement where it is negative), a boolean, a text, bytes, a message (None where it is absent), a tuple of
these, or a table of texts. What a message has beyond its struct is passed over. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from agent.errors import BadRequestError

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
DEEPEST = 32
"""Messages inside each other."""
_MASK = (1 << 64) - 1


class Message(msgspec.Struct, kw_only=True):
    """One of Protocol Buffers' messages."""


M = TypeVar("M", bound=Message)


class _Field(NamedTuple):
    """*kind* is int, bool, str, bytes or a Message; *many* None, tuple or dict (of texts to *kind*)."""

    name: str
    number: int
    kind: Any
    many: Any


@cache
def _fields(message: type[Message]) -> dict[int, _Field]:
    found = {}
    for name, hint in typing.get_type_hints(message, include_extras=True).items():
        kind, number = typing.get_args(hint)[:2]
        origin = typing.get_origin(kind)
        many: type[Any] | None = None
        if origin is tuple:
            kind, many = typing.get_args(kind)[0], tuple
        elif origin is dict:
            kind, many = typing.get_args(kind)[1], dict
        elif origin in (typing.Union, types.UnionType):
            kind = next(k for k in typing.get_args(kind) if k is not type(None))
        found[number] = _Field(name, number, kind, many)
    return found


def varint(value: int) -> bytes:
    """*value* in groups of seven bits, the lowest first."""
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(message: Message) -> bytes:
    """The bytes of *message*; fields that have their defaults are left out."""
    out = bytearray()
    for field in _fields(type(message)).values():
        value = getattr(message, field.name)
        if field.many is tuple:
            for one in value:
                _put(out, field.number, field.kind, one)
        elif field.many is dict:
            for key, one in value.items():
                pair = bytearray()
                _put(pair, 1, str, key)
                _put(pair, 2, field.kind, one)
                _put(out, field.number, bytes, bytes(pair))
        elif value or (isinstance(value, Message)):
            _put(out, field.number, field.kind, value)
    return bytes(out)


def _put(out: bytearray, number: int, kind: Any, value: Any) -> None:
    if kind is int or kind is bool:
        out += varint(number << 3 | VARINT) + varint(int(value))
        return
    if kind is str:
        value = value.encode("utf-8", "surrogateescape")
    elif kind is not bytes:
        value = encode(value)
    out += varint(number << 3 | DELIMITED) + varint(len(value))
    out += value


def decode(data: bytes, kind: type[M], depth: int = 0) -> M:
    """The message of *kind* that *data* is. Raises BadRequestError."""
    if depth > DEEPEST:
        raise BadRequestError("a message is nested too deeply")
    fields, found = _fields(kind), dict[str, Any]()
    for number, shape, raw in _parts(data):
        field = fields.get(number)
        if field is None or (shape == VARINT) != (field.kind in (int, bool) and field.many is not dict):
            if field and field.many is tuple and shape == DELIMITED and field.kind is int:
                found.setdefault(field.name, []).extend(_packed(raw))
            continue
        if field.many is tuple:
            found.setdefault(field.name, []).append(_value(raw, field.kind, depth))
        elif field.many is dict:
            pair = {n: r for n, s, r in _parts(raw) if s == DELIMITED}
            key = _value(pair.get(1, b""), str, depth)
            found.setdefault(field.name, {})[key] = _value(pair.get(2, b""), field.kind, depth)
        else:
            found[field.name] = _value(raw, field.kind, depth)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})


def _value(raw: Any, kind: Any, depth: int) -> Any:
    if kind is bool:
        return bool(raw)
    if kind is int:
        return raw - (1 << 64) if raw >> 63 else raw
    if kind is str:
        return raw.decode("utf-8", "surrogateescape")
    return raw if kind is bytes else decode(raw, kind, depth + 1)


def _packed(data: bytes) -> Iterator[int]:
    read = _reader(data)
    while (value := read()) is not None:
        yield _value(value, int, 0)


def _parts(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Numbers, shapes and raw values of the fields in *data*. Raises BadRequestError."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, shape = tag >> 3, tag & 7
        if shape == VARINT:
            value, at = _varint(data, at)
            yield number, shape, value
            continue
        if shape == DELIMITED:
            size, at = _varint(data, at)
        elif shape in (FIXED64, FIXED32):
            size = 8 if shape == FIXED64 else 4
        else:
            raise BadRequestError(f"a message has a field of the unknown shape {shape}")
        if size > end - at:
            raise BadRequestError("a message ends within a field")
        yield number, shape, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise BadRequestError("a message ends within a number, or has one of more than 64 bits")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7


def _reader(data: bytes) -> Callable[[], int | None]:
    at = 0

    def read() -> int | None:
        nonlocal at
        if at >= len(data):
            return None
        value, at = _varint(data, at)
        return value

    return read
