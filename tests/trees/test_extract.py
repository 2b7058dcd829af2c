"""Archives that lie, lead out, or explode: each ends in one sentence that names the entry, and changes nothing outside."""

from __future__ import annotations

import errno
import gzip
import io
import os
import struct
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.printable import quoted
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.layer import finish
from agent.trees.policy import Policy
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree

PLAIN = Policy(owners=False, attributes=False, devices=False)


def header(name: str = "f", **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def pax(records: dict[str, bytes]) -> bytes:
    """An extended header; each record's length counts itself."""
    body = b""
    for key, value in records.items():
        rest = b" " + key.encode() + b"=" + value + b"\n"
        size = len(rest) + 1
        while len(str(size)) + len(rest) != size:
            size += 1
        body += str(size).encode() + rest
    return header("./PaxHeaders/f", type=tarfile.XHDTYPE, size=len(body)) + padded(body)


def sparse(real_size: bytes, offset: bytes = b"00000000000\0", count: bytes = b"00000000001\0") -> bytes:
    """An old GNU sparse header. Source: GNU tar manual, "Old GNU Format"."""
    block = bytearray(header("hole", size=1))
    block[156:157] = b"S"
    block[257:265] = b"ustar  \0"
    block[386:410] = offset + count
    block[483:495] = real_size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(b"x")


def binary(number: int, width: int = 12) -> bytes:
    """A number in GNU's base-256 form."""
    return b"\x80" + number.to_bytes(width - 1, "big")


def checksummed(block: bytes, **places: bytes) -> bytes:
    """*block* with bytes put at `at_N`."""
    out = bytearray(block)
    for place, data in places.items():
        at = int(place.removeprefix("at_"))
        out[at : at + len(data)] = data
    out[148:156] = b" " * 8
    out[148:156] = b"%06o\0 " % sum(out)
    return bytes(out)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "dots": (header("../evil", size=1) + padded(b"x"), "'s entry ../evil leaves its root"),
    "dots within": (header("a/../../evil", size=1) + padded(b"x"), "a/../../evil leaves its root"),
    "zero byte in a pax path": (pax({"path": b"a\0b"}) + header(size=1) + padded(b"x"), "zero byte in its name"),
    "zero byte in an attribute's name": (
        pax({"SCHILY.xattr.user.a\0b": b"v"}) + header(size=1) + padded(b"x"),
        "an attribute with a zero byte in its name",
    ),
    "pax length that lies": (
        header("p", type=tarfile.XHDTYPE, size=10) + padded(b"99 path=a\n") + header(),
        "zero byte in its name",
    ),
    "pax length of nothing": (
        header("p", type=tarfile.XHDTYPE, size=10) + padded(b"00 path=a\n") + header(),
        "not a valid tar",
    ),
    "pax sparse map of garbage": (
        pax({"GNU.sparse.map": b"a,b", "GNU.sparse.size": b"3"}) + header(size=1) + padded(b"x"),
        "not a valid tar archive",
    ),
    "pax sparse 1.0 without a map": (
        pax({"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0"}) + header(size=512) + b"x" * 512,
        "not a valid tar archive",
    ),
    "a hole of a petabyte": (sparse(binary(1 << 50)), "hole claims 1125899906842624 bytes"),
    "a hole that ends before it begins": (
        sparse(b"00000000001\0", offset=binary(1 << 40)),
        "map of holes that contradicts itself",
    ),
    "size of 2^90": (checksummed(header(size=0), at_124=binary(1 << 80)), "claims 1208925819614629174706176 bytes"),
    "owner of 2^40": (checksummed(header(size=0), at_108=binary(1 << 40, 8)), "an owner out of range"),
    "group of 2^40": (checksummed(header(size=0), at_116=binary(1 << 40, 8)), "an owner out of range"),
    "negative size": (checksummed(header(size=0), at_124=b"\xff" * 12), ""),
    "ends within a file": (header(size=1 << 20) + b"x" * 512, "ends within its entry f"),
    "ends within a header": (header(size=1) + padded(b"x") + header("second")[:100], "not a valid tar archive"),
    "a damaged header": (header(size=1) + padded(b"x") + b"\1" * 512, "not a valid tar archive"),
    "no archive at all": (os.urandom(1) + b"not an archive" * 100, "not a valid tar archive"),
    "a path of thousands of parts": (pax({"path": b"a/" * 3000 + b"f"}) + header(), "directories deep"),
    "a path of many bytes": (pax({"path": b"/".join([b"n" * 200] * 30)}) + header(), "longer than 4096 bytes"),
    "a name of many bytes": (pax({"path": b"n" * 256}) + header(), "name longer than 255 bytes"),
    "a device of no number": (header(type=tarfile.CHRTYPE, devmajor=1 << 12), "device number out of range"),
    "an unknown type": (header(type=b"Z"), "unknown type b'Z'"),
    "a file for the root": (header(".", size=1) + padded(b"x"), "would replace its root"),
    "a link to nothing": (header("l", type=tarfile.SYMTYPE, linkname=""), "impossible name"),
    "a hard link to outside": (header("l", type=tarfile.LNKTYPE, linkname="../../etc/passwd"), "leaves its root"),
    "a hard link to what is missing": (header("l", type=tarfile.LNKTYPE, linkname="gone"), "names a file that is not there"),
    "a file below a file": (header("a", size=1) + padded(b"x") + header("a/b", size=1) + padded(b"x"), "a/b lies below a file"),
    "links in a circle": (
        header("l", type=tarfile.SYMTYPE, linkname="l") + header("l/f", size=1) + padded(b"x"),
        "through a symbolic link",
    ),
    "a gzip bomb's beginning": (gzip.compress(b"\0" * 100_000)[:-20], "data end too early"),
    "zstd garbage": (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "do not decompress"),
    "xz garbage": (b"\xfd7zXZ\0" + b"\xff" * 100, "do not decompress"),
    "bzip2 garbage": (b"BZh9" + b"\xff" * 100, "do not decompress"),
}


def unpacked(data: bytes, root: Path, policy: Policy = PLAIN, bounds: Bounds = Bounds()) -> Any:
    with Tree.at(root) as tree:
        plain = Decompressed(Source(io.BytesIO(data), None), bounds.bytes)
        result = extract(plain, tree, policy, bounds)
        plain.drain()
        return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "beside").write_text("untouched")
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_ends_in_one_sentence(name: str, root: Path) -> None:
    data, said = HOSTILE[name]
    policy = Policy(owners=False, attributes=True)
    with pytest.raises(TreeError) as found:
        unpacked(data, root, policy)
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert sorted(p.name for p in root.parent.iterdir()) == ["beside", "root"]
    assert (root.parent / "beside").read_text() == "untouched"


@pytest.mark.parametrize(
    ("make", "bounds", "said"),
    [
        (lambda: b"".join(header(str(n)) for n in range(11)), Bounds(entries=10), "more than 10 entries"),
        (lambda: header("a", size=2000) + b"x" * 2048 + header("b", size=2001), Bounds(bytes=4000), "b claims 2001 bytes"),
        (lambda: gzip.compress(b"\0" * 5000), Bounds(bytes=4000), "more than 4000 bytes when unpacked"),
        (lambda: header("a/b/c"), Bounds(path_depth=2), "more than 2 directories deep"),
        (lambda: header("abcdef"), Bounds(path_bytes=5), "longer than 5 bytes"),
    ],
)
def test_bounds_hold(make: Callable[[], bytes], bounds: Bounds, said: str, root: Path) -> None:
    with pytest.raises(TreeError, match=said):
        unpacked(make(), root, bounds=bounds)


def test_holes_stay_holes(root: Path) -> None:
    unpacked(sparse(binary(1 << 30)), root)
    status = (root / "hole").stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 <= 1 << 16


@pytest.mark.parametrize(("target", "lands"), [("../beside", None), ("/inner", "inner/f"), ("inner", "inner/f")])
def test_an_entry_below_a_link_stays_inside(root: Path, target: str, lands: str | None) -> None:
    (root / "inner").mkdir()
    data = header("l", type=tarfile.SYMTYPE, linkname=target) + header("l/f", size=1) + padded(b"x")
    unpacked(data, root)
    assert (root / (lands or "beside/f")).read_bytes() == b"x"
    assert (root.parent / "beside").read_text() == "untouched"


@pytest.mark.parametrize("brought", [True, False])
def test_without_links_an_entry_below_one_is_refused(root: Path, brought: bool) -> None:
    """The client's side of cp: a link that the archive brought, and one that was there."""
    (root.parent / "outside").mkdir()
    first = header("l", type=tarfile.SYMTYPE, linkname="../outside") if brought else b""
    if not brought:
        (root / "l").symlink_to("../outside")
    with Tree.at(root, links=False) as tree, pytest.raises(TreeError, match="entry l/f leads through a symbolic link"):
        extract(io.BytesIO(first + header("l/f", size=1) + padded(b"x")), tree, PLAIN, Bounds())
    assert not any((root.parent / "outside").iterdir())


def test_without_links_one_that_was_there_is_replaced_by_the_entry_of_its_name(root: Path) -> None:
    (root / "f").symlink_to("../beside")
    with Tree.at(root, links=False) as tree:
        extract(io.BytesIO(header("f", size=1) + padded(b"x")), tree, PLAIN, Bounds())
    assert not (root / "f").is_symlink()
    assert (root.parent / "beside").read_text() == "untouched"


def test_a_directory_is_kept_where_that_is_asked_for(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/precious").write_text("kept")
    policy = Policy(owners=False, keep_directories=True)
    with pytest.raises(TreeError, match="entry d cannot overwrite a directory with a non-directory"):
        unpacked(header("d", size=1) + padded(b"x"), root, policy)
    assert (root / "d/precious").read_text() == "kept"


def test_a_file_is_kept_where_that_is_asked_for(root: Path) -> None:
    (root / "f").write_text("kept")
    policy = Policy(owners=False, keep_others=True)
    with pytest.raises(TreeError, match="entry f cannot overwrite a non-directory with a directory"):
        unpacked(header("f", type=tarfile.DIRTYPE, size=0), root, policy)
    assert (root / "f").read_text() == "kept"


def test_modes_are_those_that_may_be(root: Path) -> None:
    data = header("f", mode=0o6755, size=0)
    unpacked(data, root, Policy(owners=False, modes=0o777))
    assert (root / "f").stat().st_mode & 0o7777 == 0o755


def test_an_error_of_the_disk_stays_one(root: Path) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.ENOSPC, "full")

    with Tree.at(root) as tree, pytest.raises(OSError, match="full") as found:
        extract(Full(), tree, PLAIN, Bounds())
    assert found.value.errno == errno.ENOSPC


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_a_name_in_a_message_is_short_and_printable(name: str) -> None:
    shown = quoted(name)
    assert all(c.isprintable() for c in shown)
    assert len(shown) <= 120 * 10


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_bytes_come_nothing_but_our_errors_come_of_them(changes: list[tuple[int, int]]) -> None:
    """A good archive with bytes changed."""
    good = pax({"path": b"a/b", "SCHILY.xattr.user.k": b"v"}) + header(size=3) + padded(b"abc") + sparse(b"00000001000\0")
    whole = bytearray(good)
    for place, byte in changes:
        whole[place % len(whole)] = byte
    with tempfile.TemporaryDirectory() as above:
        root = Path(above) / "root"
        root.mkdir()
        try:
            unpacked(bytes(whole), root)
        except TreeError as error:
            assert "\n" not in str(error)
        assert [p.name for p in Path(above).iterdir()] == ["root"]


def test_times_that_are_none_are_zero(root: Path) -> None:
    for text in (b"nan", b"inf", b"-inf", b"1e300", b"-5"):
        unpacked(pax({"mtime": text}) + header(size=0), root)
        assert (root / "f").stat().st_mtime == 0


def test_struct_is_little(root: Path) -> None:
    """What comes after the two blocks of the end is not read as entries."""
    unpacked(header("a", size=0) + b"\0" * 1024 + header("b", size=0) + struct.pack("I", 1), root)
    assert sorted(p.name for p in root.iterdir()) == ["a"]


DEVICES: dict[str, tuple[bytes, str]] = {
    "no such major": (header("c", type=tarfile.CHRTYPE, devmajor=1 << 12), "device number out of range"),
    "no such minor": (checksummed(header("c", type=tarfile.CHRTYPE), at_337=binary(1 << 20, 8)), "device number out of range"),
    "less than nothing": (checksummed(header("c", type=tarfile.BLKTYPE), at_329=b"\xff" * 8), "device number out of range"),
    "a file below one": (header("c", type=tarfile.CHRTYPE) + header("c/f", size=1) + padded(b"x"), "c/f lies below a device"),
}


@pytest.mark.parametrize("name", DEVICES)
def test_devices_that_cannot_be(name: str, root: Path) -> None:
    data, said = DEVICES[name]
    with pytest.raises(TreeError, match=said):
        unpacked(data, root, Policy(owners=False))


def test_a_device_that_became_a_directory_is_none(root: Path) -> None:
    data = header("c", type=tarfile.CHRTYPE) + header("c", type=tarfile.DIRTYPE)
    assert unpacked(data, root, Policy(owners=False)).devices == {}
    assert (root / "c").is_dir()


def test_a_fifo_may_claim_any_mode(root: Path) -> None:
    data = checksummed(header("f", type=tarfile.FIFOTYPE), at_100=binary(1 << 40, 8))
    unpacked(data, root, Policy(owners=False))
    assert (root / "f").is_fifo()


def test_two_names_of_one_device_are_told(root: Path) -> None:
    """By way of a link: only the host, who makes devices last, can see it."""
    link = header("d", type=tarfile.DIRTYPE) + header("l", type=tarfile.SYMTYPE, linkname="d")
    two = header("d/c", type=tarfile.CHRTYPE) + header("l/c", type=tarfile.CHRTYPE)
    result = unpacked(link + two, root, Policy(owners=False))
    with pytest.raises(TreeError, match="the device l/c contradicts another entry"):
        finish(str(root), {"devices": result.devices, "opaque": []}, "trusted.overlay.opaque")
