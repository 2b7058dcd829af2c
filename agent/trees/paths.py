"""Paths inside a tree, as text. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MAX_LINKS = 40
"""As many as the kernel follows in one path. Source: path_resolution(7)."""


class Step(NamedTuple):
    """What is at one path: a directory, or a symbolic link with its *target* ("" for what is none)."""

    is_directory: bool
    target: str = ""


def parts_of(path: str) -> list[str]:
    """The names that *path* consists of; `..` stays."""
    return [part for part in path.split("/") if part not in ("", ".")]


def follow(path: str, look: Callable[[str], Step | None]) -> str | None:
    """Where *path* leads inside a tree, relative to its root ("" is the root), every link followed: an absolute one begins at
    the root, and `..` does not lead above it. *look* says what is at one path whose parents are directories, None if nothing
    is. None if the path leads to nothing, through a file, or in a circle."""
    pending, here, links = list(reversed(parts_of(path))), "", 0
    while pending:
        part = pending.pop()
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        there = f"{here}/{part}" if here else part
        step = look(there)
        if step is None:
            return None
        if step.target:
            links += 1
            if links > MAX_LINKS:
                return None
            if step.target.startswith("/"):
                here = ""
            pending += reversed(parts_of(step.target))
        elif pending and not step.is_directory:
            return None
        else:
            here = there
    return here
