"""What is faster than Python's own does the same: gzip by ISA-L, and the headers of archives."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from typing import Any

import pytest

from agent.trees import streams
from agent.trees.errors import TreeError
from agent.trees.tar_reader import _Header

SEEDS = range(300)


def _read(packed: bytes, size: int) -> tuple[bytes, str] | None:
    """The plain bytes, read *size* at a time, and their digest; None if the data are refused."""
    plain = streams.Decompressed(streams.Source(io.BytesIO(packed), None), 1 << 24)
    out = b""
    try:
        while data := plain.read(size):
            out += data
        plain.drain()
    except TreeError:
        return None
    return out, plain.hash.hexdigest()


def _packed(dice: random.Random) -> bytes:
    """Members, padding and damage, as there may be."""
    many = dice.choice([0, 1, 100, 5000, 40_000])
    data = dice.choice([dice.randbytes(many), b"a" * many, (dice.randbytes(50) * many)[:many]])
    packed = gzip.compress(data, dice.randrange(1, 10)) + dice.choice([b"", gzip.compress(data[:100]), b"\0" * 600])
    for _ in range(dice.choice([0, 1, 3])):
        at = dice.randrange(2, len(packed))
        packed = packed[:at] + dice.randbytes(1) + packed[at + 1 :]
    return packed[: dice.choice([len(packed), dice.randrange(2, len(packed))])]


@pytest.mark.parametrize("chunk", [1, 500, 1 << 18])
def test_gzip_is_read_and_refused_alike(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    isal: Any = pytest.importorskip("isal.isal_zlib")
    monkeypatch.setattr(streams, "CHUNK", chunk)
    for seed in SEEDS:
        dice = random.Random(seed)
        packed, size = _packed(dice), dice.choice([10, 1000, 1 << 18])
        found = []
        for library in (zlib, isal):
            monkeypatch.setattr(streams, "_inflate", library)
            found.append(_read(packed, size))
        assert found[0] == found[1], f"seed {seed}"


def _block(dice: random.Random) -> bytes:
    """A header with what occurs, or something else in one place of it."""
    entry = tarfile.TarInfo(dice.choice(["a", "usr/lib/x" * 9, "d/", "ä/ö", "p" * 90 + "/" + "q" * 60]))
    entry.size, entry.mtime = dice.choice([0, 7, 1 << 34]), dice.choice([0, 1_700_000_000, -5])
    entry.uid, entry.mode = dice.choice([0, 1000, 1 << 22]), dice.choice([0o644, 0o4755])
    entry.type = dice.choice([b"0", b"5", b"2", b"1", b"3", b"\0", b"x", b"S", b"Z"])
    entry.linkname = dice.choice(["", "target"])
    block = entry.tobuf(dice.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]), "utf-8", "surrogateescape")[:512]
    if dice.random() < 0.5:
        at = dice.randrange(512)
        block = block[:at] + dice.choice([b"\0", b" ", b"9", b"\xff", b"_", dice.randbytes(1)]) + block[at + 1 :]
        if dice.random() < 0.7:  # its sum is right all the same
            summed = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
            block = block[:148] + b"%06o\0 " % summed + block[156:]
    return block


def test_headers_are_read_and_refused_alike() -> None:
    def parsed(kind: type[tarfile.TarInfo], block: bytes) -> object:
        try:
            made = kind.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            return type(error), str(error)
        return made.get_info(), made.chksum, made.isreg(), made.name

    known = 0
    for seed in range(5000):
        try:
            block = _block(random.Random(seed))
        except ValueError:  # a number or a name that this format does not have
            continue
        theirs = parsed(tarfile.TarInfo, block)
        assert parsed(_Header, block) == theirs, f"seed {seed}"
        known += isinstance(theirs, tuple) and isinstance(theirs[0], dict)
    assert known > 1000
