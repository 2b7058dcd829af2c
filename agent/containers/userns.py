"""User namespaces: root in a container has no rights on its host.

A container that requests one gets 65,536 IDs of the host for itself. On disk its files keep the owners that they have in the
image: owners are mapped by mounts, so layers stay shared, and a volume can be passed from one container to the next. Source:
user_namespaces(7); mount_setattr(2), ID-mapped mounts; Linux, Documentation/filesystems/idmappings.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent import mounts
from agent.errors import AgentError
from agent.trees.sandbox import IDS
from netplugins.linux.netns import in_thread
from netplugins.linux.syscalls import libc
from netplugins.linux.uapi import LINUX_CAPABILITY_VERSION_3, MS_BIND

FIRST, LAST = 0x2000_0000, 0x6000_0000
"""Above the subordinate IDs that useradd(8) gives to users, below the foreign IDs of systemd."""
WITHIN_S = 10.0


def free(taken: Iterable[int]) -> int:
    """The first host ID of a range that none of the ranges *taken* has. Raises AgentError."""
    used = set(taken)
    found = next((first for first in range(FIRST, LAST, IDS) if first not in used), 0)
    if not found:
        raise AgentError("all ranges of IDs for user namespaces are in use on this node")
    return found


def create(user: Path, net: Path, first: int) -> None:
    """Create a user namespace whose IDs are those of the host from *first* on, kept alive by *user*, and a network namespace
    that it owns, kept alive by *net*. Raises AgentError."""
    for path in (user, net):
        mounts.unmount(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o444)
    with subprocess.Popen(
        ["unshare", "--user", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            process.stdin.write(b"\n")
            process.stdin.flush()
            if not process.stdout.read(1):  # it answers once it is in its namespaces
                raise AgentError(f"no user namespace: {process.stderr.read().decode(errors='replace').strip()}")
            for kind in ("uid", "gid"):
                Path(f"/proc/{process.pid}/{kind}_map").write_text(f"0 {first} {IDS}")
            for kind, path in (("user", user), ("net", net)):
                mounts.mount(f"/proc/{process.pid}/ns/{kind}", path, "none", MS_BIND)
        except OSError as error:
            raise AgentError(f"no user namespace: {error.strerror}") from error
        finally:
            process.kill()


def delete(user: Path) -> None:
    """Remove a user namespace, if it exists."""
    if user.exists():
        mounts.unmount(user)
        user.unlink()


def bind_idmapped(source: Path, target: Path, user: Path) -> None:
    """Mount *source* at *target* with owners mapped to the namespace *user*: files of root belong to root in there."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mounts.idmapped(source, target, user)


def root(target: Path, lower: Sequence[Path], own: Path, user: Path, first: int, stage: Path, label: str = "") -> None:
    """Mount an overlay of the layers *lower* and the folder *own*, which has `upper` and `work`, for the namespace *user*;
    *stage* is a folder for its parts while that is done. *label* is the SELinux label of its files."""
    layers, written = stage / "layers", stage / "own"
    try:
        # all layers by one mount: overlayfs takes the mapping of the mount that a folder is seen through
        bind_idmapped(lower[0].parent, layers, user)
        bind_idmapped(own, written, user)

        def work() -> None:
            _act_as(first)
            mounts.overlay(target, [layers / path.name for path in lower], written, label=label)

        in_thread(work)
    finally:
        for part in (layers, written):
            mounts.unmount(part)


def _act_as(first: int) -> None:
    """Make this thread create files as *first*, with all its capabilities: overlayfs works with the credentials of its mounter,
    and a user outside the mapping cannot create files."""
    head, data = struct.pack("=II", LINUX_CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    libc.setfsgid(first)
    libc.setfsuid(first)  # takes capabilities over files away
    if libc.capget(head, data) == 0:
        _, low, low_kept, _, high, high_kept = struct.unpack("=6I", data.raw)
        if libc.capset(head, struct.pack("=6I", low, low, low_kept, high, high, high_kept)) == 0:
            return
    raise AgentError(f"capabilities of a thread: {os.strerror(ctypes.get_errno())}")
