"""Project quotas: how much the files of a folder may take together, kept by the file system (ext4, XFS).

A folder and all that is made in it have a number, its project; the file system counts what all files of a project take, and
refuses more than its limit. A process with CAP_SYS_RESOURCE is not refused on ext4. One with CAP_FOWNER in the first user
namespace can give its files another project: against a hostile container, a limit wants a user namespace too.
Source: quotactl(2), quotactl_fd (Linux 5.14); ioctl_fsxattr in linux/fs.h; ext4(5), xfs(5), option prjquota.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.errors import BadRequestError
from netplugins.linux import syscalls

FEATURE = "project-quota"
"""Among a node's features: its disk keeps sizes of writable layers and volumes."""
SYS_QUOTACTL_FD = 443
Q_GETQUOTA, Q_SETQUOTA, PROJECT = 0x800007, 0x800008, 2
LIMITS = struct.Struct("=8QI4x")
"""struct if_dqblk: hard and soft limit in KiB, bytes used, then the same of inodes, two times, which of it counts."""
BLOCK_LIMITS = 1
GET_ATTRIBUTES, SET_ATTRIBUTES = 0x801C_581F, 0x401C_5820
ATTRIBUTES = struct.Struct("=5I8x")
"""struct fsxattr: flags, two of extents, the project, one more."""
INHERIT = 0x200
FIRST, LAST = 1 << 20, (1 << 31) - 1
"""Projects that we take: people number theirs from the other end."""


def problem(path: Path) -> str:
    """Why no size can be kept below *path*; "" if one can."""
    if "prjquota" not in _options(path):
        return f"the file system of {path} keeps no sizes: ext4 or xfs mounted with prjquota does"
    try:
        with _open(path) as fd:
            _control(fd, Q_GETQUOTA, FIRST)
    except OSError as error:
        return f"the file system of {path} keeps no sizes: {os.strerror(error.errno or 0)}"
    return ""


def require(path: Path, what: str) -> None:
    """Raises BadRequestError if *what*, a size, cannot be kept below *path*."""
    if why := problem(path):
        raise BadRequestError(f"{what}: {why}")


def limit(folders: Sequence[Path], size: int) -> None:
    """All files in *folders*, which are on one file system, may take *size* bytes together, those that are there included.

    Raises OSError."""
    with _open(folders[0]) as fd:
        project = _project(fd) or _free(fd)
        _control(fd, Q_SETQUOTA, project, max(1, size >> 10))
    for folder in folders:
        for handle in _files(folder):
            _assign(handle, project)


def used(folder: Path) -> tuple[int, int]:
    """Bytes that the files of *folder*'s project take, and their limit, 0 for none. Raises OSError."""
    with _open(folder) as fd:
        project = _project(fd)
        hard, _, space, *_ = _control(fd, Q_GETQUOTA, project) if project else (0, 0, 0)
        return space, hard << 10


def forget(folder: Path) -> None:
    """Take the limit of *folder* away, whose files are about to be deleted. Does nothing where it has none."""
    with contextlib.suppress(OSError), _open(folder) as fd:
        if FIRST <= (project := _project(fd)) <= LAST:
            _control(fd, Q_SETQUOTA, project, 0)


def _options(path: Path) -> list[str]:
    """The options of the file system that *path* is on. Source: proc_pid_mountinfo(5)."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number:
            return source.split()[-1].split(",")
    return []


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _control(fd: int, command: int, project: int, kib: int = 0) -> tuple[int, ...]:
    buffer = ctypes.create_string_buffer(LIMITS.pack(kib, kib, 0, 0, 0, 0, 0, 0, BLOCK_LIMITS))
    result = syscalls.libc.syscall(SYS_QUOTACTL_FD, fd, command << 8 | PROJECT, project, buffer)
    if result < 0 and command == Q_GETQUOTA and ctypes.get_errno() == errno.ENOENT:  # XFS has none of that project yet
        return LIMITS.unpack(bytes(LIMITS.size))
    syscalls.check(result, "quotactl_fd")
    return LIMITS.unpack(buffer.raw[: LIMITS.size])


def _project(fd: int) -> int:
    buffer = bytearray(ATTRIBUTES.size)
    fcntl.ioctl(fd, GET_ATTRIBUTES, buffer)
    return int(ATTRIBUTES.unpack(buffer)[3])


def _free(fd: int) -> int:
    """A project that has neither files nor a limit; other instances on the same disk choose as blindly."""
    while True:
        project = random.randint(FIRST, LAST)
        hard, _, space, _, _, inodes, *_ = _control(fd, Q_GETQUOTA, project)
        if not (hard or space or inodes):
            return project


def _assign(fd: int, project: int) -> None:
    buffer = bytearray(ATTRIBUTES.size)
    fcntl.ioctl(fd, GET_ATTRIBUTES, buffer)
    flags, extent, extents, _, copied = ATTRIBUTES.unpack(buffer)
    is_folder = os.fstat(fd).st_mode & 0o170000 == 0o040000
    changed = ATTRIBUTES.pack(flags | INHERIT if is_folder else flags, extent, extents, project, copied)
    fcntl.ioctl(fd, SET_ATTRIBUTES, bytearray(changed))


def _files(folder: Path) -> Iterator[int]:
    """Descriptors of *folder* and of all folders and files in it, one after the other; links are not followed, and what is
    neither is left out: it takes no space of its own."""
    for _, _, names, here in os.fwalk(folder, follow_symlinks=False):
        yield here
        for name in names:
            if os.stat(name, dir_fd=here, follow_symlinks=False).st_mode & 0o170000 != 0o100000:
                continue
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            try:
                yield handle
            finally:
                os.close(handle)
