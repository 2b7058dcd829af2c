"""Where a path leads inside a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.trees.paths import MAX_LINKS, Step, follow

TREE = {
    "d": "dir",
    "d/f": "file",
    "d/up": "-> ..",
    "far": "-> /d/./f",
    "near": "-> d",
    "near2": "-> near/",
    "nowhere": "-> gone",
    "circle": "-> circle",
    "above": "-> ../../../d",
}
CASES = {
    "": "",
    "/": "",
    "d/f": "d/f",
    "./d//f": "d/f",
    "near": "d",
    "near2/f": "d/f",
    "far": "d/f",
    "d/up/near/f": "d/f",
    "d/../near2": "d",
    "above": "d",
    "../..": "",
    "gone": None,
    "d/gone": None,
    "nowhere": None,
    "circle": None,
    "d/f/x": None,
    "d/f/..": None,
}


def look(path: str) -> Step | None:
    there = TREE.get(path)
    return None if there is None else Step(there == "dir", there.removeprefix("-> ") if there.startswith("->") else "")


@pytest.mark.parametrize(("path", "where"), CASES.items(), ids=[p or "nothing" for p in CASES])
def test_a_path_leads_where_the_kernel_would_take_it_in_that_root(path: str, where: str | None, tmp_path: Path) -> None:
    assert follow(path, look) == where


@pytest.mark.parametrize("path", [p for p in CASES if ".." not in p and not {"far", "above"} & set(p.split("/"))])
def test_the_kernel_says_the_same_of_relative_links(path: str, tmp_path: Path) -> None:
    for name, there in TREE.items():
        if there == "dir":
            (tmp_path / name).mkdir()
        elif there == "file":
            (tmp_path / name).touch()
        else:
            (tmp_path / name).symlink_to(there.removeprefix("-> "))
    try:
        found = os.path.relpath((tmp_path / path.lstrip("/")).resolve(strict=True), tmp_path)
    except (OSError, RuntimeError):  # Python has its own error for a circle
        found = None
    assert follow(path, look) == ("" if found == "." else found)


def test_no_more_links_are_followed_than_by_the_kernel() -> None:
    def chain(path: str) -> Step:
        number = int(path)
        return Step(is_directory=not number, target=str(number - 1) if number else "")

    assert follow(str(MAX_LINKS), chain) == "0"
    assert follow(str(MAX_LINKS + 1), chain) is None
