"""Paths below a directory: nothing leads out, whatever links and names there are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.trees.tree import MAX_DEPTH, Tree


def refused(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a secret beside it."""
    (tmp_path / "secret").write_text("outside")
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/name").write_text("inside")
    return made


@pytest.mark.parametrize("target", ["/etc/name", "../../../../etc/name", "/../etc/name", "etc/../etc/name", "./etc/./name"])
def test_a_link_stays_inside(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    with Tree.at(root) as tree:
        assert tree.read("link", 100) == b"inside"
        assert tree.host_path("link") == root / "etc/name"


@pytest.mark.parametrize("target", ["../secret", "/secret", "/proc/self/root/etc/passwd", "etc/../../secret"])
def test_what_is_outside_is_not_there(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    with Tree.at(root) as tree:
        assert not tree.exists("link")
        assert not tree.exists(target)


def test_a_magic_link_is_none(root: Path) -> None:
    with Tree.at("/proc/self") as tree, refused(errno.ELOOP):
        tree.open("root/etc", os.O_PATH)


@pytest.mark.parametrize("path", ["link/name", "link"])
def test_without_links_none_is_followed(root: Path, path: str) -> None:
    (root / "link").symlink_to("etc")
    with Tree.at(root, links=False) as tree, refused(errno.ELOOP):
        tree.open(path)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("fifo", errno.EINVAL),
        ("etc", errno.EISDIR),
        ("missing", errno.ENOENT),
        ("large", errno.EFBIG),
        ("zero\0byte", errno.EINVAL),
        ("null", errno.EINVAL),
        ("loop", errno.ELOOP),
        ("etc/name/below", errno.ENOTDIR),
    ],
)
def test_only_a_regular_file_is_read(root: Path, what: str, code: int) -> None:
    os.mkfifo(root / "fifo")
    (root / "large").write_bytes(b"x" * 101)
    (root / "loop").symlink_to("loop")
    if what == "null":
        if os.geteuid():
            pytest.skip("a device needs root")
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    with Tree.at(root) as tree, refused(code) as found:
        tree.read(what, 100)
    assert found.value.filename == what


@pytest.mark.parametrize("directory", [True, False])
def test_what_is_made_through_links_lies_inside(root: Path, directory: bool) -> None:
    (root / "to").symlink_to("../../outside/there")
    with Tree.at(root) as tree:
        tree.make("/to/a/b", directory=directory)
        assert tree.is_directory("outside/there/a/b") == directory
        assert tree.is_file("outside/there/a/b") != directory
        tree.make("/to/a/b", directory=directory)  # once more is fine
    assert not (root.parent / "outside").exists()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/".join("a" * (MAX_DEPTH + 3)), errno.ENAMETOOLONG),
        ("x" * 256, errno.ENAMETOOLONG),
        ("loop/a", errno.ELOOP),
        ("etc/name/a", errno.ENOTDIR),
        ("a\0b", errno.EINVAL),
    ],
)
def test_what_cannot_be_made_is_told(root: Path, path: str, code: int) -> None:
    (root / "loop").symlink_to("loop")
    with Tree.at(root) as tree, refused(code):
        tree.make(path, directory=True)


def test_a_file_is_not_made_of_a_directory(root: Path) -> None:
    with Tree.at(root) as tree, pytest.raises(IsADirectoryError):
        tree.make("etc", directory=False)


def test_no_descriptor_stays_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Tree.at(root) as tree:
        for number in range(200):
            tree.make(f"many/{number}/deep", directory=True)
            tree.parent(f"many/{number}/deep/x")
    assert len(os.listdir("/proc/self/fd")) == before
