"""Gives a tree of the host another SELinux label: what `:z` and `:Z` of a mount ask for.

No link is followed: each directory is looked up below the root's descriptor, each entry is named by its own. A root that has
its label says nothing of what is below: where the policy has no default_range, a file that a container makes has the
container's own categories, and not those of its folder. Source: setxattr(2), openat2(2), proc(5) ("/proc/PID/fd"); chcon(1).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from agent.errors import BadRequestError, reason
from agent.trees.tree import Tree

ATTRIBUTE = "security.selinux"
TOP = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var".split()  # noqa: SIM905 (a line)
NEVER = frozenset(("/", *(f"/{name}" for name in TOP), "/etc/passwd", "/etc/pki", "/etc/shadow", "/var/lib", "/var/log"))
"""What a host needs as it is labelled: `-v /etc:/x:Z` would leave it without users. Source: podman-run(1), "--volume"."""


REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""A directory went meanwhile, or a file or link is in its place."""


def relabel(path: Path, label: str) -> bool:
    """Give *path*, and all below where it is a directory, the *label*. Returns whether its file system has labels.

    A file system without labels stays as it is. Raises BadRequestError for a directory of the system, or where the kernel
    refuses."""
    try:
        root = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            require_not_the_systems(os.readlink(f"/proc/self/fd/{root}"))
            value = label.encode()
            if stat.S_ISDIR(os.fstat(root).st_mode):
                if (now := _label(root)) and not _set(root, now):
                    return False  # it is found out before the walk
                _below(root, value)
            return _give(root, value)
        finally:
            os.close(root)
    except OSError as error:
        raise BadRequestError(f"SELinux relabeling of {path} failed: {reason(error)}") from error


def require_not_the_systems(path: str) -> None:
    """Raises BadRequestError where *path*, links resolved, is a directory of the system or the home of a user."""
    if path in NEVER or os.path.dirname(path) == "/home" or path == os.environ.get("HOME"):
        raise BadRequestError(
            f"SELinux relabeling of {path} is not allowed: name a folder below it, or mount it without z and Z"
        )


def _below(root: int, value: bytes) -> None:
    """All below the directory *root*, but not itself."""
    with Tree(os.dup(root), links=False) as tree:
        pending = ["."]
        while pending:
            folder = pending.pop()
            try:
                directory = tree.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in REPLACED:
                    continue
                raise
            try:
                with os.scandir(directory) as entries:
                    names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                for name, is_directory in names:
                    _label_entry(directory, name, value)
                    if is_directory:
                        pending.append(f"{folder}/{name}")
            finally:
                os.close(directory)


def _label_entry(directory: int, name: str, value: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            _give(fd, value)
        finally:
            os.close(fd)


def _give(fd: int, value: bytes) -> bool:
    """As `_set`, without writing what is there already."""
    return _label(fd) == value or _set(fd, value)


def _label(fd: int) -> bytes:
    """The label that it has; nothing where it has none."""
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", ATTRIBUTE).rstrip(b"\0")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def _set(fd: int, value: bytes) -> bool:
    """Whether its file system has labels."""
    try:
        os.setxattr(f"/proc/self/fd/{fd}", ATTRIBUTE, value)  # of what was opened: a link is not gone through
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True
