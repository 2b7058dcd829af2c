"""Removing a foreign tree: however deep, however named, and nothing that a link leads to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.trees.removal import remove_tree


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/f").write_text("x")
    (tmp_path / "doomed/d").mkdir(parents=True)
    (tmp_path / "doomed/d/l").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "doomed")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "never was")
    assert [p.name for p in tmp_path.rglob("*")] == ["kept", "f"]


@pytest.mark.parametrize("depth", [40, 5000])
def test_a_deep_tree_goes(tmp_path: Path, depth: int) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    here = os.open(doomed, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    before = len(os.listdir("/proc/self/fd"))
    remove_tree(doomed)
    assert not doomed.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_may_not_be_read_goes_too(tmp_path: Path) -> None:
    (tmp_path / "doomed/closed").mkdir(parents=True)
    (tmp_path / "doomed/closed/f").write_text("x")
    (tmp_path / "doomed/closed").chmod(0)
    remove_tree(tmp_path / "doomed")
    assert not (tmp_path / "doomed").exists()
