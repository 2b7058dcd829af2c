"""Archives for the room of trees: layers, what is copied into containers, and tables of image archives. A batch is unpacked by
one confined worker, each archive below a directory of its own."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import mmap
import os
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import zstandard

from agent.settings import ImageLimits
from agent.trees import confine, layer, members, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.extract import extract
from agent.trees.policy import Policy
from agent.trees.removal import remove_tree
from agent.trees.streams import Decompressed, Source
from agent.trees.tree import Tree
from tests.fuzz import mutate
from tests.fuzz.area import Area, Run, told, unfit

BATCH = 64
BOUNDS = Bounds(entries=2000, bytes=1 << 28)
LIMITS = ImageLimits(entries=BOUNDS.entries, bytes=BOUNDS.bytes)
CANARY = "canary"
NAMES = tuple(
    "a|d/b|d|./d/|/abs|..|../out|d/../../out|../canary|d/l/x|l|l/x|.wh.a|d/.wh..wh..opq|.wh...|.wh.||.|/|a\0b|é|\udc80|dev/null|"
    "proc/self/root|//a|a//b|a/.|d/h".split("|")
) + ("x" * 255, "x" * 256, "p/" * 300)
LINKS = (
    *"a|..|/|/etc|../canary|../../../../../../../../tmp|d|l|./l||/proc/self/root|/proc/self/fd/0".split("|"),
    "x" * 5000,
)
KINDS = (b"0", b"0", b"\0", b"1", b"2", b"2", b"3", b"4", b"5", b"5", b"6", b"7", b"L", b"K", b"x", b"g", b"S", b"D", b"\xff")


def _entry(name: str, kind: bytes = b"0", data: bytes = b"", link: str = "", **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    info.mode = 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info


def _tar(kind: int, *entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def _sparse_old() -> bytes:
    """GNU's old form: a map in the header."""
    head = bytearray(_entry("sparse", b"S").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % 1024
    head[386:482] = b"".join(b"%011o\0%011o\0" % pair for pair in ((0, 512), (8192, 512), (0, 0), (0, 0)))
    head[482] = 0
    head[483:495] = b"%011o\0" % 16384
    return signed(bytes(head)) + b"s" * 1024 + bytes(1024)


def signed(head: bytes) -> bytes:
    """A header with the checksum that it must have."""
    plain = head[:148] + b" " * 8 + head[156:512]
    return plain[:148] + b"%06o\0 " % sum(plain) + plain[156:] + head[512:]


def _sparse(**info: str) -> dict[str, str]:
    return {f"GNU.sparse.{key}": value for key, value in info.items()}


_LONG = "long/" * 40
_MAP = b"1\n0\n2\n" + bytes(506) + b"ab"
_ATTRIBUTES = {"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.capability": "\1\0\0\2"}
SEEDS = (
    _tar(
        tarfile.PAX_FORMAT,
        (_entry("d", b"5"), b""),
        (_entry("d/b", data=b"text" * 200), b"text" * 200),
        (_entry("l", b"2", link="d"), b""),
        (_entry("d/h", b"1", link="d/b"), b""),
        (_entry("d/.wh.c"), b""),
        (_entry("d/.wh..wh..opq"), b""),
    ),
    _tar(
        tarfile.PAX_FORMAT,
        (_entry("x", data=b"1", pax_headers=_ATTRIBUTES), b"1"),
        (_entry("é" * 60, data=b"2", uid=3_000_000, mtime=1.5), b"2"),
        (_entry("f", b"6"), b""),
        (_entry("c", b"3", devmajor=1, devminor=3), b""),
        (_entry("k", b"4", devmajor=7), b""),
    ),
    _tar(
        tarfile.GNU_FORMAT,
        (_entry(_LONG + "a", data=b"3"), b"3"),
        (_entry("s", b"2", link=_LONG), b""),
        (_entry("big", uid=1 << 22, gid=1 << 22), b""),
    ),
    _tar(
        tarfile.USTAR_FORMAT,
        (_entry("u/v", data=b"4" * 2000), b"4" * 2000),
        (_entry("u", b"5"), b""),
        (_entry("u/v", b"5"), b""),
    ),
    _tar(
        tarfile.PAX_FORMAT,
        (_entry("0.1", data=b"ab", pax_headers=_sparse(map="0,1,100,1", size="4096", name="n")), b"ab"),
        (_entry("0.0", data=b"ab", pax_headers=_sparse(numblocks="1", size="9")), b"ab"),
        (_entry("1.0", data=_MAP, pax_headers=_sparse(major="1", minor="0", realsize="4096", name="m")), _MAP),
    ),
    _sparse_old(),
    _tar(
        tarfile.USTAR_FORMAT,
        (_entry("index.json", data=b"{}"), b"{}"),
        (_entry("blobs/sha256/0", data=b"[]"), b"[]"),
        (_entry("o", b"2", link="index.json"), b""),
    ),
)
_FIELDS: tuple[tuple[int, int], ...] = (
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (329, 8),
    (337, 8),
)
_FIELDS += ((345, 155), (386, 96), (482, 1), (483, 12))
_NUMBERS = tuple(b"0|7777777|77777777777|-1| |9|00000000144|4000000000|\0|0x10|1e3".split(b"|"))
_NUMBERS += (b"\x80" + bytes(3) + b"\1\0\0\0", b"\xff" * 12, b"\x80" + b"\xff" * 11)
_HEADERS = (
    "path",
    "linkpath",
    "size",
    "mtime",
    "uid",
    "SCHILY.xattr.user.x",
    "hdrcharset",
    "GNU.sparse.map",
    "GNU.sparse.major",
)


def spoiled(rng: random.Random) -> bytes:
    """A tar whose headers are spoiled but signed, or whose bytes are; sometimes compressed, and spoiled once more."""
    data = rng.choice(SEEDS)
    chance = rng.random()
    if chance < 0.15:
        data = _made(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        data = _field(rng, data)
    if chance > 0.75:
        data = mutate.some(rng, data)
    if rng.random() < 0.25:
        data = rng.choice(_COMPRESS)(data)
        if rng.random() < 0.6:
            data = mutate.some(rng, data)
    return data


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


_COMPRESS: tuple[Callable[[bytes], bytes], ...] = (
    _gzip,
    zstandard.compress,
    bz2.compress,
    lambda data: lzma.compress(data, preset=0),
    lambda data: _gzip(data[:600]) + _gzip(data[600:]),
)


def _field(rng: random.Random, data: bytes) -> bytes:
    """Another value in one field of one header, with its checksum."""
    blocks = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not blocks:
        return data
    at = rng.choice(blocks)
    head = bytearray(data[at : at + 512])
    start, size = rng.choice(_FIELDS)
    if start in (0, 345):
        value = rng.choice(NAMES).encode("utf-8", "surrogateescape")
    elif start == 157:
        value = rng.choice(LINKS).encode()
    elif start == 156:
        value = rng.choice(KINDS)
    else:
        value = rng.choice((*_NUMBERS, rng.randbytes(size)))
    head[start : start + size] = value[:size].ljust(size, b"\0")
    return data[:at] + signed(bytes(head)) + data[at + 512 :]


def _made(rng: random.Random) -> bytes:
    """Entries that contradict each other: links, then what leads through them."""
    entries = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.choice(KINDS[:11])
        data = b"q" * rng.choice((0, 1, 600)) if kind in (b"0", b"\0") else b""
        odd = (*mutate.TEXTS[:50], *NAMES)
        headers = {rng.choice(_HEADERS): rng.choice(odd) for _ in range(rng.choice((0, 0, 0, 1, 2)))}
        entries.append((_entry(rng.choice(NAMES), kind, data, rng.choice(LINKS), pax_headers=headers), data))
    try:
        return _tar(rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)), *entries)
    except (ValueError, UnicodeError, struct.error):
        return SEEDS[0]


class Archives(Area):
    name = "archives"
    share = 0.2

    def run(self, inputs: Iterable[int], run: Run) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-archives-") as folder:
            numbers = iter(inputs)
            while batch := list(islice(numbers, BATCH)):
                self._batch(batch, run, Path(folder))

    def _batch(self, batch: list[int], run: Run, folder: Path) -> None:
        target = folder / "target"
        (folder / CANARY).write_bytes(b"sings")
        for index in batch:
            (target / str(index)).mkdir(parents=True)
        (target / CANARY).write_bytes(b"sings")
        tree = confine.open_tree(str(target), read_only=False, nested=False)
        replies = mmap.mmap(-1, BATCH << 12)

        def work() -> confine.Reply:
            top = Tree(tree)
            for number, index in enumerate(batch):
                run.begin(index)
                reply = _unpack(top, index, run.rng(index))
                run.done(refused="error" in reply)
                data = json.dumps({k: v for k, v in reply.items() if k in ("error", "status", "trace")}).encode()[
                    : (1 << 12) - 1
                ]
                replies[number << 12 : (number << 12) + len(data)] = data
                if "error" not in reply:
                    kept[index] = {k: reply[k] for k in ("devices", "opaque")}
            return {"kept": kept}

        kept: dict[int, confine.Reply] = {}
        try:
            done = confine.run(work, [tree], calls=sandbox.WRITE_CALLS, capabilities=sandbox.OWNERS)
        finally:
            os.close(tree)
        if "error" in done:
            run.fault(batch[0], f"the worker of the batch: {done['error']}")
        for number, index in enumerate(batch):
            said = json.loads(replies[number << 12 : (number + 1) << 12].rstrip(b"\0") or b'{"error": "no answer"}')
            if "error" in said and (said.get("trace") or said.get("status") == 500 or unfit(said["error"])):
                run.fault(index, f"{said['error']} {said.get('trace', '')} {unfit(said['error'])}")
        for index, reply in done.get("kept", {}).items():
            try:
                layer.finish(str(target / index), reply, "trusted.overlay.opaque")
            except TreeError as error:
                if bad := unfit(str(error)):
                    run.fault(int(index), f"what the host does for it {bad}: {str(error)[:300]!r}")
            except Exception as error:
                run.fault(int(index), f"what the host does for it failed: {told(error)}")
        there = {*map(str, batch), CANARY}
        if set(os.listdir(target)) != there or set(os.listdir(folder)) != {"target", CANARY}:
            run.fault(batch[0], f"files outside the target, in this batch: {set(os.listdir(target)) ^ there}")
        if any(p.read_bytes() != b"sings" for p in (folder / CANARY, target / CANARY)):
            run.fault(batch[0], "a file outside the target was changed, in this batch")
        remove_tree(target)
        if target.exists():
            run.fault(batch[0], "a tree of this batch cannot be removed")
        replies.close()


def _unpack(top: Tree, index: int, rng: random.Random) -> confine.Reply:
    """One archive, as a layer, as a copy, or as an image's."""
    data, chance = spoiled(rng), rng.random()
    tree = Tree(top.open(str(index), os.O_PATH | os.O_DIRECTORY))
    try:
        if chance < 0.7:
            attribute = f"{'user' if chance < 0.1 else 'trusted'}.overlay.opaque"
            return layer.unpack(tree, io.BytesIO(data), None, "", "", attribute, BOUNDS)
        if chance < 0.85:
            result = extract(
                Decompressed(Source(io.BytesIO(data), None), BOUNDS.bytes), tree, Policy(), BOUNDS, into="here/it/is"
            )
            return {"devices": result.devices, "opaque": []}
        members.table(io.BytesIO(data), io.BytesIO(), BOUNDS)
        return {"devices": {}, "opaque": []}
    except BaseException as error:
        return confine.as_reply(error)
    finally:
        tree.close()
