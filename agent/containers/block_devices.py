"""The block device that a file lies on: limits of I/O are kept by whole disks, and people know paths.

Source: kernel, Documentation/admin-guide/cgroup-v2.rst, IO; proc_pid_mountinfo(5); sysfs(5), /sys/dev/block.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from agent.errors import BadRequestError, reason

SYSFS = Path("/sys/dev/block")
BFQ = "[bfq]"


class BlockDevice(NamedTuple):
    """A block device by its numbers; its text is how the files of control groups name it."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"


def at(path: str) -> BlockDevice:
    """The disk of the device node *path*. Raises BadRequestError for what is not a block device."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadRequestError(f"stat {path}: {reason(error)}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise BadRequestError(f"blkio_config: {path} is not a block device")
    return whole(BlockDevice(os.major(status.st_rdev), os.minor(status.st_rdev)))


def under(path: Path, what: str) -> BlockDevice:
    """The disk that the file or folder *path* lies on; *what* names it in errors. Raises BadRequestError if there is none."""
    try:
        number = path.stat().st_dev
    except OSError as error:
        raise BadRequestError(f"blkio_config: {what}: {path}: {reason(error)}") from error
    if os.major(number):
        return whole(BlockDevice(os.major(number), os.minor(number)))
    kind, source = _mounted(f"{os.major(number)}:{os.minor(number)}")
    try:
        return at(source)  # Btrfs numbers its subvolumes itself, and names its disk here
    except BadRequestError:
        raise BadRequestError(
            f"blkio_config: {what} is on a file system of type {kind}, which has no block device: limits of disk I/O hold for "
            "ext4, xfs and btrfs on a disk of the node"
        ) from None


def whole(device: BlockDevice) -> BlockDevice:
    """The disk of which *device* is a partition; *device* itself where it is none: the kernel limits disks alone."""
    folder = SYSFS / str(device)
    if not (folder / "partition").exists():
        return device
    major, minor = (folder.resolve().parent / "dev").read_text().strip().split(":")
    return BlockDevice(int(major), int(minor))


def has_weights(device: BlockDevice) -> bool:
    """Whether the scheduler of *device* is BFQ, which alone knows weights."""
    try:
        return BFQ in (SYSFS / str(device) / "queue" / "scheduler").read_text()
    except OSError:
        return False


def any_has_weights() -> bool:
    """Whether BFQ is the scheduler of any disk of this host."""
    return any(BFQ in file.read_text() for file in Path("/sys/block").glob("*/queue/scheduler"))


def _mounted(number: str) -> tuple[str, str]:
    """The type and source of the file system with the device *number*."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number:
            kind, name, *_ = source.split()
            return kind, name
    return "unknown", ""
