"""mount(2) and what it needs: overlay roots, binds, and the table of what is mounted."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from agent import rootless
from agent.errors import AgentError

_libc = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2
MS_REC, MS_PRIVATE, MS_SLAVE, CLONE_NEWNS = 16384, 1 << 18, 1 << 19, 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
PAGE = 4096
# the same numbers on every architecture: they came after these were made equal
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = -100, 0x1000, 1, 4, 0x0010_0000


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode()) < 0:
        code = ctypes.get_errno()
        raise AgentError(f"mount {kind} at {target}: {os.strerror(code)}")


def overlay(target: Path, lower: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount an overlay: *lower* from the bottom layer to the top one, writes to *upper*."""
    layers = ":".join(str(path) for path in reversed(lower))
    data = f"lowerdir={layers},upperdir={upper},workdir={work}{_attributes()}"
    if len(data) >= PAGE:
        raise AgentError(f"the image has {len(lower)} layers, more than one mount call can name: flatten it")
    mount("overlay", target, "overlay", 0, data)


def layers(target: Path, lower: Sequence[Path]) -> None:
    """Mount *lower*, from the bottom layer to the top one, as one tree that nobody can write to."""
    if len(lower) == 1:  # an overlay without an upper layer wants two
        mount(str(lower[0]), target, "none", MS_BIND)
        return mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
    data = "lowerdir=" + ":".join(str(path) for path in reversed(lower)) + _attributes()
    mount("overlay", target, "overlay", MS_RDONLY, data)


def _attributes() -> str:
    """Where overlayfs keeps its notes: without root it cannot have them in `trusted.`. Source: overlayfs.rst, "User xattr"."""
    return ",userxattr" if rootless.inside() else ""


def overlay_attribute(name: str) -> str:
    """The extended attribute that overlayfs calls *name*."""
    return f"{'user' if rootless.inside() else 'trusted'}.overlay.{name}"


def idmapped(source: Path, target: Path, user: Path) -> None:
    """A bind of *source* at *target* in which owners are mapped by the user namespace at *user*. Raises AgentError.

    Source: open_tree(2), mount_setattr(2), move_mount(2); Linux 5.12."""
    handle = os.open(user, os.O_RDONLY | os.O_CLOEXEC)
    tree = -1
    try:
        tree = _call("open_tree", OPEN_TREE, AT_FDCWD, str(source).encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, handle)
        try:
            _call("mount_setattr", MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
        except AgentError as error:
            raise AgentError(
                f"{source}: its file system or this kernel cannot map owners ({error}); userns_mode: host does without"
            ) from error
        _call("move_mount", MOVE_MOUNT, tree, b"", AT_FDCWD, str(target).encode(), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        if tree >= 0:
            os.close(tree)
        os.close(handle)


def _call(name: str, number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise AgentError(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def unmount(target: Path) -> None:
    """Take *target* off, lazily where it is busy; not mounted is fine."""
    _libc.umount2(str(target).encode(), MNT_DETACH)


def below(path: Path) -> list[Path]:
    """Mount points at or under *path*, deepest first."""
    prefix = str(path)
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            point = line.split(" ", 5)[4].replace("\\040", " ")
            if point == prefix or point.startswith(prefix + "/"):
                found.append(Path(point))
    return sorted(found, key=lambda p: len(str(p)), reverse=True)


def is_mounted(path: Path) -> bool:
    return os.path.ismount(path)


def is_shared(path: Path) -> bool:
    """Mounts made below *path* here are seen in other mount namespaces. Source: mount_namespaces(7), proc(5)."""
    best, shared = "", False
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split(" - ", 1)[0].split(" ")
            point = fields[4].replace("\\040", " ")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, shared = point, any(f.startswith("shared:") for f in fields[6:])
    return shared


def own_namespace() -> None:
    """From now on this process sees what is mounted elsewhere, and its own mounts are seen by nobody. Raises AgentError."""
    if _libc.unshare(CLONE_NEWNS) < 0:
        raise AgentError(f"a mount namespace: {os.strerror(ctypes.get_errno())}")
    mount("none", Path("/"), "none", MS_REC | MS_SLAVE)


def hide(point: Path) -> None:
    """Unmount *point* for this process and its children alone, in a mount namespace of their own."""
    if _libc.unshare(CLONE_NEWNS) < 0:
        raise AgentError(f"a mount namespace of the agent's own: {os.strerror(ctypes.get_errno())}")
    for part in (point.parent, point):
        if os.path.ismount(part):
            mount("none", part, "none", MS_PRIVATE)
    unmount(point)
    mount("tmpfs", point, "tmpfs", 0, "mode=755")
