"""Owner, mode, time and extended attributes of an archive's entries, as its headers give them."""

from __future__ import annotations

import errno
import os
import tarfile

from agent.trees.bounds import entry_title
from agent.trees.errors import TreeError
from agent.trees.policy import Policy
from agent.trees.tree import working_in

MAX_OWNER = (1 << 31) - 1
MAX_TIME = 1 << 32
XATTR_KEY = "SCHILY.xattr."
"""The prefix of the keys of extended attributes in a pax header. Source: star(5)."""
OF_THE_HOST = ("trusted.overlay.", "user.overlay.", "security.selinux")
"""Attributes by which overlayfs would take an entry for something else, and the label by which SELinux says whose it is."""
LOST = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
"""A file system, or a user, without a kind of attribute loses it, as in Docker."""


class Attributes:
    """Gives files the attributes of entries, as far as *policy* keeps them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def set_owner(self, entry: tarfile.TarInfo) -> None:
        """Give *entry* the policy's owner, if it has one. Raises TreeError if its owner is out of range."""
        if self._policy.owner:
            entry.uid, entry.gid = self._policy.owner
        if not (0 <= entry.uid <= MAX_OWNER and 0 <= entry.gid <= MAX_OWNER):
            raise TreeError(f"{entry_title(self._policy.what, entry.name)} has an owner out of range")

    def apply(self, entry: tarfile.TarInfo, fd: int, *, times: bool = True) -> None:
        """Set owner, attributes, mode and time of the open file *fd*, in the order in which one does not undo the other."""
        if self._policy.owners:
            os.fchown(fd, entry.uid, entry.gid)
        for name, value in self._xattrs(entry):
            _set_xattr(fd, name, value)
        os.fchmod(fd, entry.mode & self._policy.modes)
        if times:
            when = seconds(entry)
            os.utime(fd, (when, when))

    def apply_by_name(self, entry: tarfile.TarInfo, parent: int, base: str) -> None:
        """Set owner, attributes and time of what can only be named: the link or FIFO *base* in the directory *parent*."""
        if self._policy.owners:
            os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if attributes := self._xattrs(entry):
            with working_in(parent):
                for name, value in attributes:
                    _set_xattr(base, name, value)
        when = seconds(entry)
        os.utime(base, (when, when), dir_fd=parent, follow_symlinks=False)

    def _xattrs(self, entry: tarfile.TarInfo) -> list[tuple[str, bytes]]:
        if not self._policy.attributes:
            return []
        out = []
        for key, value in entry.pax_headers.items():
            name = key.removeprefix(XATTR_KEY)
            if name == key or name.startswith(OF_THE_HOST):
                continue
            if "\0" in name:
                raise TreeError(f"{entry_title(self._policy.what, entry.name)} has an attribute with a zero byte in its name")
            out.append((name, value.encode(errors="surrogateescape")))
        return out


def _set_xattr(target: int | str, name: str, value: bytes) -> None:
    try:
        if isinstance(target, str):
            os.setxattr(target, name, value, follow_symlinks=False)
        else:
            os.setxattr(target, name, value)
    except OSError as error:
        if error.errno not in LOST:
            raise


def seconds(entry: tarfile.TarInfo) -> float:
    """The time of last change in seconds since 1970; 0 for one that is out of range."""
    when = float(entry.mtime)
    return when if 0 <= when < MAX_TIME else 0.0  # also for a NaN
