"""Another SELinux label for a tree: all of it and nothing else. Root may set it where the kernel has no SELinux, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import BadRequestError
from agent.trees import relabel as room
from agent.trees.relabel import ATTRIBUTE, relabel

LABEL, OTHER = "system_u:object_r:container_file_t:s0:c1,c2", "system_u:object_r:container_file_t:s0"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="to set labels is root's")


def label(path: Path) -> str:
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=False).rstrip(b"\0").decode()
    except OSError:
        return ""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_text("x")
    (top / "a/strange\udcff\n name").write_text("x")
    os.mkfifo(top / "a/fifo")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (top / "a/to-folder").symlink_to(tmp_path / "outside")
    (top / "a/to-file").symlink_to(tmp_path / "outside/file")
    (top / "a/nowhere").symlink_to("/nonexistent")
    return top


def test_all_below_gets_the_label_and_nothing_that_links_lead_to(tree: Path) -> None:
    before = label(tree.parent / "outside"), label(tree.parent / "outside/file")
    assert relabel(tree, LABEL)
    assert {label(path) for path in (tree, *tree.rglob("*"))} == {LABEL}
    assert len(list(tree.rglob("*"))) == 8
    assert (label(tree.parent / "outside"), label(tree.parent / "outside/file")) == before


def test_what_came_since_gets_the_label_too_and_nothing_is_written_twice(tree: Path) -> None:
    """A file that a container makes may have its own categories, which the next container is not to be kept out by."""
    assert relabel(tree, LABEL)
    os.setxattr(tree / "a/b/file", ATTRIBUTE, OTHER.encode())
    before = (tree / "a/to-file").lstat().st_ctime_ns
    assert relabel(tree, LABEL)
    assert label(tree / "a/b/file") == LABEL
    assert (tree / "a/to-file").lstat().st_ctime_ns == before
    assert relabel(tree, OTHER)
    assert {label(path) for path in (tree, *tree.rglob("*"))} == {OTHER}


def test_a_walk_that_was_cut_off_is_done_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(directory: int, name: str, value: bytes) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(room, "_label_entry", cut_off)
        with pytest.raises(BadRequestError, match=r"SELinux relabeling of .*top failed: input/output error"):
            relabel(tree, LABEL)
    assert label(tree) != LABEL
    assert relabel(tree, LABEL)
    assert label(tree / "a/b/file") == LABEL


def test_one_file_is_labelled_by_itself(tree: Path) -> None:
    assert relabel(tree / "a/b/file", LABEL)
    assert label(tree / "a/b/file") == LABEL
    assert label(tree / "a/b") != LABEL


def test_a_link_as_the_source_is_what_it_leads_to(tree: Path) -> None:
    assert relabel(tree / "a/to-folder", LABEL)
    assert label(tree.parent / "outside/file") == LABEL
    assert label(tree / "a/to-folder") != LABEL


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/root", "/home", "/home/a", "/var", "/var/lib", "/run", "/tmp"])
def test_the_directories_of_the_system_are_refused(path: str) -> None:
    with pytest.raises(BadRequestError, match=rf"SELinux relabeling of {path} is not allowed"):
        room.require_not_the_systems(path)  # and not `relabel`: a fault would label this host


def test_a_directory_of_the_system_is_refused_whatever_the_way_to_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "NEVER", frozenset({str(tree / "a")}))
    (tree / "link").symlink_to("a")
    for path in (tree / "a", tree / "link", tree / "a/b/..", tree / "a/."):
        with pytest.raises(BadRequestError, match=f"SELinux relabeling of {tree}/a is not allowed"):
            relabel(path, LABEL)
    assert label(tree / "a") != LABEL
    assert relabel(tree / "a/b", LABEL)


def test_the_home_of_the_agents_user_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    with pytest.raises(BadRequestError, match="is not allowed"):
        relabel(tree, LABEL)
    assert label(tree / "a") != LABEL


def test_a_file_system_without_labels_stays_as_it_is() -> None:
    assert not relabel(Path(f"/proc/{os.getpid()}/fdinfo/0"), LABEL)


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="failed: no such file or directory"):
        relabel(tmp_path / "none", LABEL)
