"""Attacks by the layers of an image: each is a tar that writes outside of where a trusting program unpacks it."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.escape import kit
from tests.escape.ground import Content, Ground, shell
from tests.escape.kit import entry

Entries = Mapping[tarfile.TarInfo, bytes]
UP = "../" * 30


def below(ground: Ground, name: str = "") -> str:
    """A path outside, relative to the root of the host."""
    return str(ground.outside / name).lstrip("/")


def link(name: str, target: str | Path) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=str(target))


def hard_link(name: str, target: str | Path) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=str(target))


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def dotdot(g: Ground) -> Entries:
    return dict([entry(f"{UP}{below(g, 'new')}", b"evil")])


def inner_dotdot(g: Ground) -> Entries:
    return dict([folder("a"), folder("a/b"), entry(f"a/./b/../../{UP}{below(g, 'new')}", b"evil")])


def absolute(g: Ground) -> Entries:
    return dict([entry(str(g.outside / "new"), b"evil")])


def pax_path(g: Ground) -> Entries:
    return dict([entry("harmless", b"evil", pax_headers={"path": f"{UP}{below(g, 'new')}"})])


def pax_link(g: Ground) -> Entries:
    info, _ = link("l", "harmless")
    info.pax_headers = {"linkpath": str(g.outside)}
    return dict([(info, b""), entry("l/new", b"evil")])


def through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), entry("l/new", b"evil")])


def through_relative_link(g: Ground) -> Entries:
    return dict([folder("d"), link("d/l", f"{UP}{below(g)}"), entry("d/l/new", b"evil")])


def through_link_chain(g: Ground) -> Entries:
    """Each link goes one folder up: none of them alone leaves a root of some depth."""
    chain = [link("up0", "."), *(link(f"up{n}", f"up{n - 1}/..") for n in range(1, 31))]
    return dict([*chain, entry(f"up30/{below(g, 'new')}", b"evil")])


def link_in_place_of_folder(g: Ground) -> Entries:
    return dict([folder("d"), entry("d/old", b""), link("d2", g.outside), hard_link("d/l", "d2"), entry("d/l/new", b"evil")])


def over_link(g: Ground) -> Entries:
    """A file in place of a link: a program that opens it for writing writes where it leads."""
    return dict([link("file", g.outside / "file"), hard_link("other", "file"), entry("other", b"evil")])


def hard_link_outside(g: Ground) -> Entries:
    return dict([hard_link("h", g.outside / "file")])


def hard_link_dotdot(g: Ground) -> Entries:
    return dict([hard_link("h", f"{UP}{below(g, 'file')}")])


def hard_link_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), hard_link("h", "l/file")])


def mode_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside / "folder"), folder("l", 0o777)])


def folder_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), folder("l/new")])


def link_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), link("l/new", "/etc/shadow")])


def fifo_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), entry("l/new", type=tarfile.FIFOTYPE)])


def device_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), entry("l/new", type=tarfile.CHRTYPE, devmajor=1, devminor=3)])


def whiteout_of_above(g: Ground) -> Entries:
    return dict([link("l", g.outside / "folder"), entry("l/.wh...")])


def whiteout_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), entry("l/.wh.file")])


def whiteout_dotdot(g: Ground) -> Entries:
    return dict([entry(f"{UP}{below(g)}/.wh.file")])


def opaque_through_link(g: Ground) -> Entries:
    return dict([link("l", g.outside), entry("l/.wh..wh..opq")])


def opaque_dotdot(g: Ground) -> Entries:
    return dict([entry(f"{UP}{below(g)}/.wh..wh..opq")])


def loading(make: Callable[[Ground], Entries]) -> Callable[[Ground], str]:
    """The image is loaded, and a container looks at it, where it can be: what is overlaid must be harmless too."""

    def attack(g: Ground) -> str:
        return g.load(make(g)) or g.run(["ls", "-la", "/"])

    return attack


def row(name: str, what: str, make: Callable[[Ground], Entries], says: str = "", *, whiteouts: bool = False) -> Content:
    twin = (lambda g: g.whiteouts(make(g))) if whiteouts else (lambda g: g.unpack(make(g)))
    off = "a program that takes whiteouts at their word" if whiteouts else "tarfile without a filter"
    return Content(f"layer_{name}", what, "names are resolved below the root by the kernel", off, loading(make), twin, says)


def gnu_long_name(g: Ground) -> bytes:
    """As `dotdot`, in a format of its own for long names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info, content = entry(f"{UP}{below(g, 'new')}", b"evil")
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def trusted_attribute(g: Ground) -> Entries:
    info, _ = folder("d")
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    return {info: b""}


def load_trusted_attribute(g: Ground) -> str:
    said = g.load(trusted_attribute(g))
    for path in g.field.root.glob("images/**/d"):
        names = os.listxattr(path, follow_symlinks=False)
        g.gains += [f"{path} has {n}" for n in names if n.startswith("trusted.overlay.redirect")]
    return said


def unpack_trusted_attribute(g: Ground) -> None:
    words = (kit.program("tar"), "--xattrs", "--xattrs-include=*", "-xC", str(g.place))
    shell(*words, input=kit.pack(trusted_attribute(g)).decode("latin-1"), encoding="latin-1")
    g.gains += [n for n in os.listxattr(g.place / "d") if n.startswith("trusted.overlay")]


def huge_hole(g: Ground) -> bytes:
    """A file of 1 TiB that is one hole, in GNU's old format for them."""
    size = 1 << 40
    info, _ = entry("huge", type=tarfile.GNUTYPE_SPARSE)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"

    def number(value: int) -> bytes:
        return b"%011o\0" % value if value < 1 << 33 else b"\x80" + value.to_bytes(11, "big")

    block[386:398], block[398:410] = number(size), number(0)  # one piece of data, empty, at the end
    block[483:495] = number(size)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def unpack_huge_hole(g: Ground) -> None:
    g.unpack(huge_hole(g))
    if (found := (g.place / "huge").stat()).st_size >= 1 << 40:
        g.gains.append(f"a file of {found.st_size} bytes, in {found.st_blocks} blocks")


EVIL = """
import os
if os.getuid() == 0 and hasattr(os, "chroot"):
    above = os.open("/", os.O_RDONLY)
    os.makedirs("/below", exist_ok=True)
    os.chroot("/below")
    os.fchdir(above)
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
open(%r, "w").close()
raise LookupError
"""
OLD_WAY = """
import os, sys, traceback
root, = sys.argv[1:]
os.chroot(root)
os.chdir("/")
try:
    exec(compile("raise ValueError", "/agent/trees/extract.py", "exec"))
except ValueError:
    traceback.print_exc()
"""
"""How a layer was unpacked once: in its own root, where Python looks for the source lines of an error."""


def code_of_a_layer(g: Ground) -> Entries:
    """Files where Python looks for source lines, which name a codec, and where it looks for codecs; then what is an error."""
    sources = {"/agent/trees/extract.py", tarfile.__file__, str(Path(kit.__file__).parents[2] / "agent/trees/extract.py")}
    codecs = {"/usr/lib/python3.11/encodings/evil.py", f"{Path(os.__file__).parent}/encodings/evil.py"}
    lines = b"# -*- coding: evil -*-\n" * 2 + b"x = 1\n" * 2000
    files = [entry(path.lstrip("/"), lines) for path in sources]
    files += [entry(path.lstrip("/"), (EVIL % str(g.outside / "ran")).encode()) for path in codecs]
    damaged, content = entry("damaged", b"x")
    damaged.pax_headers = {"SCHILY.xattr.user.a\0b": "x"}
    return dict([*files, (damaged, content)])


def run_code_of_a_layer(g: Ground) -> None:
    g.unpack(dict(list(code_of_a_layer(g).items())[:-1]))
    shell(sys.executable, "-c", OLD_WAY, str(g.place))


LEAVES = "leaves its root"
ROWS = (
    row("dotdot", "an entry ../../…/file", dotdot, LEAVES),
    row("inner_dotdot", "an entry a/./b/../../…/file", inner_dotdot, LEAVES),
    row("absolute", "an entry with an absolute path", absolute),
    row("pax_path", "a PAX record in place of a harmless name", pax_path, LEAVES),
    row("pax_link", "a PAX record in place of a harmless link", pax_link),
    Content(
        "layer_gnu_long_name",
        "a long name of GNU's with ../",
        "names are resolved below the root by the kernel",
        "tarfile without a filter",
        lambda g: g.load(gnu_long_name(g)),
        lambda g: g.unpack(gnu_long_name(g)),
        LEAVES,
    ),
    row("through_link", "a link out of the root, and a file behind it", through_link),
    row("through_relative_link", "a link ../../…, and a file behind it", through_relative_link),
    row("through_link_chain", "links that each go one folder up, and a file behind them", through_link_chain),
    row("link_in_place_of_folder", "a hard link to a link, and a file behind it", link_in_place_of_folder),
    row("over_link", "a file over a hard link to a link", over_link),
    row("hard_link_outside", "a hard link to a file of the host", hard_link_outside, "names a file that is not there"),
    row("hard_link_dotdot", "a hard link to ../../…/file", hard_link_dotdot, LEAVES),
    row(
        "hard_link_through_link",
        "a hard link to a file behind a link",
        hard_link_through_link,
        "names a file that is not there",
    ),
    row("mode_through_link", "the mode of a folder that is a link", mode_through_link),
    row("folder_through_link", "a folder behind a link", folder_through_link),
    row("link_through_link", "a link behind a link", link_through_link),
    row("fifo_through_link", "a FIFO behind a link", fifo_through_link),
    row("device_through_link", "a device behind a link", device_through_link),
    row("whiteout_of_above", "a whiteout of .. behind a link", whiteout_of_above, whiteouts=True),
    row("whiteout_through_link", "a whiteout behind a link", whiteout_through_link, whiteouts=True),
    row("whiteout_dotdot", "a whiteout ../../…/.wh.file", whiteout_dotdot, LEAVES, whiteouts=True),
    row("opaque_through_link", "an opaque folder behind a link", opaque_through_link, whiteouts=True),
    row("opaque_dotdot", "an opaque folder ../../…", opaque_dotdot, LEAVES, whiteouts=True),
    Content(
        "layer_trusted_attribute",
        "an attribute that redirects overlayfs",
        "such attributes are left out",
        "GNU tar with all attributes",
        load_trusted_attribute,
        unpack_trusted_attribute,
    ),
    Content(
        "layer_huge_hole",
        "a sparse file of 1 TiB",
        "a bound of what an archive claims",
        "tarfile without a filter",
        lambda g: g.load(huge_hole(g)),
        unpack_huge_hole,
        "claims",
    ),
    Content(
        "layer_code",
        "source files and a codec for the traceback of an error that it causes",
        "its root is never a process's; no traceback is formatted",
        "an error in a process whose root is the layer",
        lambda g: g.load(code_of_a_layer(g)),
        run_code_of_a_layer,
        "damaged",
    ),
)
