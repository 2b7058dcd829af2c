"""The table of an image archive: where each file is, with links followed inside and nothing unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.members import MAX_MEMBERS, table
from tests.images import tar_of
from tests.trees.test_extract import binary, checksummed, header, padded, sparse

FILES: dict[str, bytes | str | None] = {
    "a/layer.tar": b"the layer",
    "b/layer.tar": "../a/layer.tar",
    "c": "b/layer.tar",
    "out": "/etc/passwd",
    "round": "round",
    "manifest.json": b"[]",
}


def read(data: bytes) -> dict[str, bytes]:
    plain = io.BytesIO()
    reply = table(io.BytesIO(data), plain, Bounds())
    whole = plain.getvalue() if reply["plain"] else data
    return {name: whole[at : at + size] for name, (at, size) in reply["members"].items()}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_files_and_links_to_them_are_found(compress: Callable[[bytes], bytes]) -> None:
    assert read(compress(tar_of(FILES))) == {
        "a/layer.tar": b"the layer",
        "b/layer.tar": b"the layer",
        "c": b"the layer",
        "manifest.json": b"[]",
    }


def test_hard_links_and_dots() -> None:
    data = header("./a", size=1) + padded(b"x") + header("b", type=tarfile.LNKTYPE, linkname="./a")
    assert read(data) == {"a": b"x", "b": b"x"}


def test_the_last_of_a_name_counts() -> None:
    data = header("a", size=1) + padded(b"x") + header("a", size=1) + padded(b"y")
    assert read(data) == {"a": b"y"}


def numbered(count: int) -> bytes:
    """*count* headers with names of six digits, of which each checksum follows."""
    first = header("0" * 6)
    rest = int(first[148:154], 8) - sum(b"0" * 6)
    return b"".join(b"%06d%b%06o\0 %b" % (n, first[6:148], rest + sum(b"%06d" % n), first[156:]) for n in range(count))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"x" * 2000, "not a valid tar archive"),
        (header("a", size=1) + padded(b"x") + b"\1" * 512, "not a valid tar archive after a: a header is damaged"),
        (checksummed(header("a"), at_124=binary(1 << 60)), "not a valid tar archive after a: unexpected end of data"),
        (gzip.compress(tar_of(FILES))[:-30], "data end too early"),
        (checksummed(header("a"), at_124=b"\xff" * 12), ""),
    ],
)
def test_what_is_no_archive_is_told(data: bytes, said: str) -> None:
    with pytest.raises(TreeError) as found:
        read(data)
    assert said in str(found.value)


def test_more_members_than_anybody_has_are_refused() -> None:
    with pytest.raises(TreeError, match="more than 100000 entries"):
        read(numbered(MAX_MEMBERS + 2))


def test_files_with_holes_are_no_members() -> None:
    assert read(sparse(b"00000001000\0")) == {}
