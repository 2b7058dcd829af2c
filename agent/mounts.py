"""mount(2) and what it needs: overlay roots, binds, and the table of what is mounted."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent import rootless
from agent.errors import AgentError
from netplugins.linux import syscalls
from netplugins.linux.netns import in_thread
from netplugins.linux.uapi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    CLONE_FS,
    CLONE_NEWNS,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
)

PAGE = 4096
"""Bytes of mount options that mount(2) takes."""
MOST_LAYERS = 500
"""As many as an overlay can have below. Source: Linux, fs/overlayfs/params.h, OVL_MAX_STACK."""
PAGE_LAYERS = 190
"""As many names of 20 characters as one page of mount options holds beside `upperdir`, `workdir` and `userxattr`."""


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises AgentError."""
    try:
        syscalls.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode())
    except OSError as error:
        raise AgentError(str(error.strerror)) from error


def most_layers() -> int:
    """As many layers as this kernel mounts in one overlay."""
    return MOST_LAYERS if takes_layers_singly() else PAGE_LAYERS


def takes_layers_singly() -> bool:
    """This kernel takes layers one by one: `lowerdir+`, Linux 6.8. Source: overlayfs.rst, "Multiple lower layers"."""
    try:
        _name_one()
    except AgentError:
        return False
    return True


@functools.cache
def _name_one() -> None:
    """Once it has been done: a kernel that can goes on to. Raises AgentError."""
    with _opened("overlay") as context:
        _set(context, FSCONFIG_SET_STRING, "lowerdir+", "/")
        try:  # before Linux 6.5 overlayfs looked at no option before the mount: each would pass here, and fail there
            _set(context, FSCONFIG_SET_STRING, "pystack-unknown", "/")
        except AgentError:
            return
    raise AgentError("this kernel takes any option of overlayfs unseen")


def overlay(target: Path, lower: Sequence[Path], own: Path, *, singly: bool | None = None, label: str = "") -> None:
    """Mount an overlay: *lower*, neighbours in one folder, from the bottom layer to the top one; writes go to the folder *own*,
    which has `upper` and `work`. *singly*: name layers one by one; unsaid, if this kernel can. *label*: the SELinux label of
    all its files. Raises AgentError."""
    _overlay(target, lower, own, takes_layers_singly() if singly is None else singly, label)


def layers(target: Path, lower: Sequence[Path], *, singly: bool | None = None) -> None:
    """Mount *lower* (as in `overlay`) as one read-only tree. Raises AgentError."""
    if len(lower) == 1:  # an overlay without an upper layer wants two
        mount(str(lower[0]), target, "none", MS_BIND)
        return mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
    _overlay(target, lower, None, takes_layers_singly() if singly is None else singly)


def _overlay(target: Path, lower: Sequence[Path], own: Path | None, singly: bool, label: str = "") -> None:
    """All folders are named from open ones: short, so that many fit, and without the characters of the way there, of which
    overlayfs would take `:`, `,` and `\\` for its own."""

    def work() -> None:
        with contextlib.ExitStack() as opened:
            syscalls.check(syscalls.libc.unshare(CLONE_FS), "unshare the working directory")  # of this thread alone
            os.chdir(lower[0].parent)
            options = []
            if own:
                folder = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, folder)
                options = [("upperdir", f"/proc/self/fd/{folder}/upper"), ("workdir", f"/proc/self/fd/{folder}/work")]
            names = [path.name for path in reversed(lower)]
            (_name_singly if singly else _name_at_once)(target, names, options, label)

    try:
        in_thread(work)
    except OSError as error:
        raise AgentError(f"mount overlay at {target}: {error}") from error
    if own and os.statvfs(target).f_flag & os.ST_RDONLY:
        # without room for its work directory overlayfs mounts all the same, but read-only (kernel: overlayfs.rst)
        unmount(target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(own))


def _name_at_once(target: Path, names: Sequence[str], options: Sequence[tuple[str, str]], label: str) -> None:
    pairs = [("lowerdir", ":".join(names)), *options]
    data = ",".join(f"{key}={value}" for key, value in pairs) + _attributes() + labelled(label)
    if len(data) >= PAGE:  # mount(2) would cut it off
        raise AgentError(f"mount overlay at {target}: the names of {len(names)} layers do not fit one mount call")
    mount("overlay", target, "overlay", 0 if options else MS_RDONLY, data)


def _name_singly(target: Path, names: Sequence[str], options: Sequence[tuple[str, str]], label: str) -> None:
    """Source: fsopen(2), fsconfig(2), fsmount(2)."""
    with _opened("overlay") as context:
        try:
            own_label = [("context", label)] if label else []  # without quotes: nothing splits a value that comes alone
            for key, value in (("source", "overlay"), *(("lowerdir+", name) for name in names), *options, *own_label):
                _set(context, FSCONFIG_SET_STRING, key, value)
            for flag in (*_attributes().split(",")[1:], *(() if options else ("ro",))):
                _set(context, FSCONFIG_SET_FLAG, flag)
            _call("fsconfig", SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        except AgentError as error:
            raise AgentError(f"mount overlay at {target}: {_message(context) or error}") from error
        tree = _call("fsmount", SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
        try:
            _call("move_mount", SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)


@contextlib.contextmanager
def _opened(kind: str) -> Iterator[int]:
    context = _call("fsopen", SYS_FSOPEN, kind.encode(), FSOPEN_CLOEXEC)
    try:
        yield context
    finally:
        os.close(context)


def _set(context: int, how: int, key: str, value: str | None = None) -> None:
    _call(f"fsconfig {key}", SYS_FSCONFIG, context, how, key.encode(), os.fsencode(value) if value is not None else None, 0)


def _message(context: int) -> str:
    """The kernel's message about the failure, "" if it has none. Source: fsopen(2), "Message retrieval interface"."""
    try:
        return os.read(context, PAGE).decode(errors="replace").removeprefix("e ").strip()
    except OSError:
        return ""


def _attributes() -> str:
    """Where overlayfs keeps its notes: without root it cannot have them in `trusted.`. Source: overlayfs.rst, "User xattr"."""
    return ",userxattr" if rootless.inside() else ""


def labelled(label: str) -> str:
    """The option, after others, of a mount whose files all have a SELinux *label*; "" for "". Source: mount(8), "context="."""
    return f',context="{label}"' if label else ""


def overlay_attribute(name: str) -> str:
    """The extended attribute that overlayfs calls *name*."""
    return f"{'user' if rootless.inside() else 'trusted'}.overlay.{name}"


def idmapped(source: Path, target: Path, user: Path) -> None:
    """A bind of *source* at *target* in which owners are mapped by the user namespace at *user*. Raises AgentError.

    Source: open_tree(2), mount_setattr(2), move_mount(2); Linux 5.12."""
    handle = os.open(user, os.O_RDONLY | os.O_CLOEXEC)
    tree = -1
    try:
        tree = _call("open_tree", SYS_OPEN_TREE, AT_FDCWD, str(source).encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = struct.pack("=QQQQ", MOUNT_ATTR_IDMAP, 0, 0, handle)
        try:
            _call("mount_setattr", SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
        except AgentError as error:
            raise AgentError(
                f"{source}: its file system or this kernel cannot map owners ({error}); userns_mode: host does without"
            ) from error
        _call("move_mount", SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, str(target).encode(), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        if tree >= 0:
            os.close(tree)
        os.close(handle)


def _call(name: str, number: int, *arguments: object) -> int:
    try:
        return syscalls.check(int(syscalls.libc.syscall(number, *arguments)), name)
    except OSError as error:
        raise AgentError(str(error.strerror)) from error


def unmount(target: Path) -> None:
    """Unmount *target*, lazily if it is busy; nothing happens if it is not mounted."""
    syscalls.libc.umount2(str(target).encode(), MNT_DETACH)


def below(path: Path) -> list[Path]:
    """Mount points at or under *path*, deepest first."""
    prefix = str(path)
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            point = _unescaped(line.split(" ", 5)[4])
            if point == prefix or point.startswith(prefix + "/"):
                found.append(Path(point))
    return sorted(found, key=lambda p: len(str(p)), reverse=True)


def _unescaped(field: str) -> str:
    """Source: proc(5), mountinfo: a blank, a backslash and the like are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def is_mounted(path: Path) -> bool:
    """Whether *path* is a mount point; see os.path.ismount."""
    return os.path.ismount(path)


def is_shared(path: Path) -> bool:
    """Mounts made below *path* here are seen in other mount namespaces. Source: mount_namespaces(7), proc(5)."""
    best, shared = "", False
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split(" - ", 1)[0].split(" ")
            point = _unescaped(fields[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, shared = point, any(f.startswith("shared:") for f in fields[6:])
    return shared


def hide(point: Path) -> None:
    """Unmount *point* for this process and its children only, in a mount namespace of their own."""
    try:
        syscalls.check(syscalls.libc.unshare(CLONE_NEWNS), "a mount namespace of the agent's own")
    except OSError as error:
        raise AgentError(str(error.strerror)) from error
    for part in (point.parent, point):
        if os.path.ismount(part):
            mount("none", part, "none", MS_PRIVATE)
    unmount(point)
    mount("tmpfs", point, "tmpfs", 0, "mode=755")
