"""Trees become archives and come back the same; layers say what was deleted; copies keep holes and links."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.mounts import overlay_attribute
from agent.trees.bounds import Bounds
from agent.trees.extract import extract
from agent.trees.pack import Packer, changes, copy_tree, pack_layer, walk
from agent.trees.policy import Policy
from agent.trees.tree import Tree
from tests.trees.test_extract import header, pax

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and trusted attributes need root")


def packed(root: Path, first_id: int = 0) -> bytes:
    out = io.BytesIO()
    packer = Packer(out, first_id=first_id)
    with Tree.at(root) as tree:
        for seen in walk(tree):
            packer.entry(seen, seen.path)
    packer.end()
    return out.getvalue()


def described(root: Path) -> dict[str, object]:
    out: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what: object = None
        if stat.S_ISREG(status.st_mode):
            what = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            what = str(path.readlink())
        attributes = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
        owner = status.st_uid, status.st_gid
        out[str(path.relative_to(root))] = (status.st_mode, owner, int(status.st_mtime), what, attributes)
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "d/empty").mkdir(parents=True)
    (made / "d/f").write_bytes(b"content" * 100_000)
    (made / "d/set").write_text("x")
    (made / "d/set").chmod(0o4750)
    (made / "l").symlink_to("d/f")
    (made / "dangling").symlink_to("/nowhere")
    os.link(made / "d/f", made / "again")
    os.mkfifo(made / "fifo")
    (made / "ü\udcff").write_text("a name that is no UTF-8")
    with (made / "hole").open("wb") as file:
        file.seek(1 << 24)
        file.write(b"end")
    os.setxattr(made / "d/f", "user.k", b"\x00\xffv")
    os.utime(made / "d/f", (1_000_000_000, 1_000_000_000))
    return made


def test_a_tree_comes_back_as_it_was(root: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    back.mkdir()
    with Tree.at(back) as tree:
        extract(io.BytesIO(packed(root)), tree, Policy(owners=os.geteuid() == 0), Bounds())
    assert described(back) == described(root)
    assert (back / "again").stat().st_ino == (back / "d/f").stat().st_ino


@pytest.mark.skipif(os.geteuid() != 0, reason="to set labels is root's")
def test_labels_of_selinux_are_the_hosts_own_both_ways(root: Path, tmp_path: Path) -> None:
    """An image that brings its labels would say to the policy whose files it has."""
    os.setxattr(root / "d/f", "security.selinux", b"u:object_r:here_t:s0")
    assert b"here_t" not in packed(root)
    assert b"user.k" in packed(root)
    (tmp_path / "back").mkdir()
    (tmp_path / "copy").mkdir()
    kept = {"SCHILY.xattr.security.selinux": b"u:object_r:strange_t:s0", "SCHILY.xattr.user.k": b"v"}
    with Tree.at(root) as source, Tree.at(tmp_path / "back") as tree, Tree.at(tmp_path / "copy") as copy:
        extract(io.BytesIO(pax(kept) + header("f")), tree, Policy(owners=False), Bounds())
        copy_tree(source, "", copy)
    for path in (tmp_path / "back/f", tmp_path / "copy/d/f"):
        assert os.getxattr(path, "user.k")
        assert "security.selinux" not in os.listxattr(path) or b"_t" not in os.getxattr(path, "security.selinux")


def test_whoever_packs_and_unpacks_stays_where_he_is(root: Path, tmp_path: Path) -> None:
    before = Path.cwd()
    (tmp_path / "back").mkdir()
    with Tree.at(tmp_path / "back") as tree:
        link = pax({"SCHILY.xattr.user.k": b"v"}) + header("l", type=tarfile.SYMTYPE, linkname="x")
        extract(io.BytesIO(packed(root)), tree, Policy(owners=False), Bounds())
        extract(io.BytesIO(link), tree, Policy(owners=False), Bounds())
    assert Path.cwd() == before


def test_gnu_tar_reads_it(root: Path) -> None:
    listed = subprocess.run(["tar", "-t"], input=packed(root), capture_output=True, check=True).stdout.splitlines()
    assert {b"d/", b"d/f", b"again", b"fifo", b"l", b"hole"} <= set(listed)


def test_a_copy_is_the_same_and_keeps_holes(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with Tree.at(root) as source, Tree.at(copy) as target:
        copy_tree(source, "", target)
    assert described(copy) == described(root)
    assert (copy / "hole").stat().st_blocks * 512 < 1 << 20
    assert (copy / "again").stat().st_ino == (copy / "d/f").stat().st_ino


def test_a_copy_of_what_a_link_leads_to_stays_inside(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to("../../../../../d")
    copy = tmp_path / "copy"
    copy.mkdir()
    with Tree.at(root) as source, Tree.at(copy) as target:
        copy_tree(source, "out", target)
    assert sorted(p.name for p in copy.iterdir()) == ["empty", "f", "set"]


@needs_root
def test_owners_count_from_the_containers_root(root: Path) -> None:
    os.chown(root / "d", 100_007, 100_008)
    with tarfile.open(fileobj=io.BytesIO(packed(root, 100_000))) as archive:
        info = archive.getmember("d")
        assert (info.uid, info.gid) == (7, 8)
        assert archive.getmember("hole").uid == 0  # who was not mapped


@needs_root
def test_deletions_are_whiteouts_and_come_back(tmp_path: Path) -> None:
    upper, lower, back = (tmp_path / name for name in ("upper", "lower", "back"))
    for made in (upper / "new", upper / "kept", lower / "kept", back):
        made.mkdir(parents=True)
    (lower / "kept/f").write_text("old")
    (upper / "kept/f").write_text("changed")
    os.mknod(upper / "gone", 0o20000, 0)
    os.setxattr(upper / "new", overlay_attribute("opaque"), b"y")
    out = io.BytesIO()
    packer = Packer(out)
    with Tree.at(upper) as tree, Tree.at(lower) as below:
        pack_layer(tree, packer, overlay_attribute("opaque"))
        assert sorted(changes(tree, below)) == [("gone", 2), ("kept", 0), ("kept/f", 0), ("new", 1)]
    packer.end()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert sorted(archive.getnames()) == [".wh.gone", "kept", "kept/f", "new", "new/.wh..wh..opq"]
    with Tree.at(back) as tree:
        extract(io.BytesIO(out.getvalue()), tree, Policy(whiteouts=True, opaque=overlay_attribute("opaque")), Bounds())
    assert (back / "gone").stat().st_rdev == 0
    assert stat.S_ISCHR((back / "gone").stat().st_mode)
    assert os.getxattr(back / "new", overlay_attribute("opaque")) == b"y"


def test_a_file_that_shrinks_meanwhile_is_filled_up(tmp_path: Path) -> None:
    """The header has said how large it is."""
    (tmp_path / "f").write_bytes(b"x" * 1000)
    out = io.BytesIO()
    with Tree.at(tmp_path) as tree:
        fd = tree.open_file("f")
        os.truncate(tmp_path / "f", 10)
        Packer(out).content(fd, 1000)
        os.close(fd)
    assert out.getvalue() == b"x" * 10 + b"\0" * 1014


NAME = st.binary(min_size=1, max_size=40).filter(lambda b: b not in (b".", b"..") and not set(b) & {0, 47})


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAME, st.one_of(st.binary(max_size=2000), st.none()), max_size=8))
def test_any_names_and_contents_come_back(files: dict[bytes, bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as above:
        root, back = Path(above) / "root", Path(above) / "back"
        root.mkdir()
        back.mkdir()
        for name, content in files.items():
            path = root / os.fsdecode(name)
            path.mkdir() if content is None else path.write_bytes(content)
        with Tree.at(back) as tree:
            extract(io.BytesIO(packed(root)), tree, Policy(owners=False), Bounds())
        assert described(back) == described(root)
