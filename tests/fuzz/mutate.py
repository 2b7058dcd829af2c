"""Ways to spoil what is good: bytes, text and JSON documents. Pure: all chance comes from the generator that is given."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

NUMBERS = (
    0,
    -1,
    1,
    7,
    255,
    256,
    65535,
    65536,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    1 << 40,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    -(1 << 63),
    1 << 64,
    10**40,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
)
TEXTS = (
    "",
    "\0",
    "a\0b",
    "..",
    "../../../../etc",
    "/",
    "//",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/fd/0",
    ".",
    "-",
    "--help",
    "a b",
    "\n",
    "\r\n",
    "\x1b[2J",
    "é",
    "\u2028",
    "\ud800",
    "𝟙",
    "²",
    "٣",
    "0x10",
    "1e9",
    "-1",
    "99999999999999999999",
    "nan",
    "inf",
    "true",
    "null",
    "%00",
    "%2e%2e%2f",
    "${x}",
    "$(id)",
    "`id`",
    "'",
    '"',
    "\\",
    ":",
    "::",
    "@",
    "a@b",
    "sha256:",
    "sha256:" + "0" * 64,
    "sha256:" + "G" * 64,
    "sha512:" + "0" * 128,
    "sha256:../../../../../../etc",
    "http://",
    "https://[",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "ext::sh -c id",
    "80/tcp",
    "0:0",
    "65536",
    "1-9999999",
    "x" * 300,
    "y/" * 300,
    "z" * 5000,
)
STRUCTURES: tuple[Any, ...] = (None, True, False, [], {}, [None], [[]], [{}], {"": ""}, {"a": None}, [0] * 600, ["x"] * 600)


def odd(rng: random.Random) -> Any:
    """A value that is rarely meant."""
    found = rng.choice(rng.choice((NUMBERS, TEXTS, TEXTS, STRUCTURES)))
    return json.loads(json.dumps(found)) if isinstance(found, dict | list) else found


def some(rng: random.Random, data: bytes) -> bytes:
    """*data* with one to four changes of its bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(_BYTES)(rng, data)
    return data


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\xff"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _set(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 1, 2, 4, 8))
    return (
        data[:at]
        + rng.choice((b"\0", b"\xff", b"\x80", b"0", b"7", b"9", b"-", b" ", b"/", b"\x7f")) * size
        + data[at + size :]
    )


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 512)) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at]
        + rng.choice((rng.randbytes(rng.choice((1, 2, 8, 64))), rng.choice(TEXTS[:60]).encode("utf-8", "surrogatepass")))
        + data[at:]
    )


def _again(rng: random.Random, data: bytes) -> bytes:
    """A piece of it once more, somewhere else."""
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 32, 512, 1024))]
    at = rng.randrange(len(data) + 1)
    return data[:at] + piece + data[at:]


_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _flip, _set, _set, _cut, _drop, _insert, _again)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key) of all that is in *value*."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else ()
    for key, item in pairs:
        found.append((value, key))
        _places(item, found)
    return found


def document(rng: random.Random, good: str) -> bytes:
    """The JSON document *good*, spoiled in its values, in its text, or both."""
    value = json.loads(good)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        value = _change(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    data = text.encode("utf-8", "surrogatepass")
    chance = rng.random()
    if chance < 0.02:
        return deep(rng, data)
    if chance < 0.2:
        return some(rng, data)
    return data


def _change(rng: random.Random, value: Any) -> Any:
    places = _places(value, [])
    if not places or rng.random() < 0.02:
        return odd(rng)
    holder, key = rng.choice(places)
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1:
        other, name = rng.choice(places)
        try:
            holder[key] = copy.deepcopy(other[name])
        except (KeyError, IndexError):
            holder[key] = None
    elif how == 2 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif how == 3 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    else:
        holder[key] = odd(rng)
    return value


def deep(rng: random.Random, data: bytes) -> bytes:
    """A piece of the text becomes a tower of brackets."""
    height = rng.choice((100, 1000, 5000, 100_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    at = data.find(b":", rng.randrange(len(data) + 1)) + 1
    tower = opened * height + b"1" + (closed * height if rng.random() < 0.7 else b"")
    return data[:at] + tower + data[at:].lstrip(b' "0123456789')
