"""Paths that cannot leave a container's root, and what trees take on disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from agent.contract.atomic import write_atomically
from agent.errors import BadRequestError
from agent.trees.removal import remove_tree
from agent.trees.tree import Tree
from netplugins.linux.syscalls import check, libc
from netplugins.linux.uapi import AT_FDCWD, RENAME_EXCHANGE

__all__ = ["make_in_root", "read_in_root", "remove_tree", "resolve_in_root", "used", "write_atomically"]


def read_in_root(root: Path, path: str, limit: int = 8 << 20) -> str:
    """Text of the regular file *path* inside *root*; "" if it does not exist. Raises BadRequestError for anything else at that
    path, and for a file of more than *limit* bytes."""
    with Tree.at(root) as tree:
        try:
            return tree.read(path, limit).decode(errors="replace")
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EISDIR, errno.EFBIG):
                raise BadRequestError(f"the image's {path} cannot be read: {error.strerror}") from None
            return ""


def resolve_in_root(root: Path, path: str) -> Path:
    """Where *path* really is on the host, symlinks resolved inside *root*. Raises OSError if it does not exist."""
    with Tree.at(root) as tree:
        return tree.host_path(path)


def make_in_root(root: Path, path: str, *, directory: bool) -> None:
    """Make *path* and its parents inside *root* where they are missing; links are followed inside. Raises BadRequestError."""
    with Tree.at(root) as tree:
        try:
            tree.make(path, directory=directory)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            shown = path if len(path) <= 120 else f"{path[:100]}…"
            if error.errno == errno.ENOTDIR:
                raise BadRequestError(f"Cannot mkdir: {shown} is not a directory") from error
            raise BadRequestError(f"{shown} cannot be made in the container: {error.strerror}") from error


def link_in_root(root: Path, path: str, target: str) -> None:
    """Create a symbolic link at *path* inside *root* to *target*, unless the path exists. Its directory must exist."""
    with Tree.at(root) as tree:
        parent, name = tree.parent(path)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, name, dir_fd=parent)


def used(path: Path, is_over: Callable[[], bool] = lambda: False) -> int:
    """Bytes of the files of a tree, as Docker counts them. Files that vanish meanwhile are not counted, nor what comes once
    *is_over*."""
    total, seen = 0, set()
    for folder, _, names in os.walk(path):
        if is_over():
            break
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def exchange(one: Path, other: Path) -> None:
    """Each of two paths becomes the other, at one moment. Raises OSError. Source: rename(2), RENAME_EXCHANGE."""
    names = (os.fsencode(path) for path in (one, other))
    check(libc.renameat2(AT_FDCWD, next(names), AT_FDCWD, next(names), RENAME_EXCHANGE), "renameat2")
