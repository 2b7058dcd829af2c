"""Removes a foreign tree, however deep, without following a link and without leaving its file system."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

OPEN_AT_MOST = 32
"""Directories that are open at a time, one inside the other; deeper ones are moved up first."""


def remove_tree(path: Path) -> None:
    """Remove *path* and all below, if it exists. Mounts below stay, and the directories that lead to them.

    Raises OSError."""
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove(parent, path.name)
    finally:
        os.close(parent)


def remove(parent: int, name: str) -> None:
    """The same for *name* in the directory *parent*."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        top = _open(name, parent)
    except FileNotFoundError:
        return
    device = os.fstat(top).st_dev
    try:
        while _empty(top, top, device, 0):
            pass
    finally:
        os.close(top)
    _remove_empty(name, parent)


def _empty(directory: int, top: int, device: int, depth: int) -> bool:
    """Remove the entries of *directory*. Returns True if some were moved up to *top*, which must be read again."""
    moved = False
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            continue
        if depth >= OPEN_AT_MOST:
            with contextlib.suppress(OSError):  # a mount
                os.rename(name, f".removed-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
                moved = True
            continue
        try:
            inner = _open(name, directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            if os.fstat(inner).st_dev != device:
                continue  # a mount
            moved |= _empty(inner, top, device, depth + 1)
        finally:
            os.close(inner)
        _remove_empty(name, directory)
    return moved


def _remove_empty(name: str, parent: int) -> None:
    """Remove the directory *name*, unless something is mounted there or below. Raises OSError."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.EEXIST):
            raise


def _open(name: str, parent: int) -> int:
    """A descriptor of the directory *name*, after making it readable for a user who is not the host's root."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{held}", 0o700)
        finally:
            os.close(held)
        return os.open(name, flags, dir_fd=parent)
