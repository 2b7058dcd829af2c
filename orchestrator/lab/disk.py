"""A machine's own disk: a file with a file system in it, which can be full while the host's is not."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

from orchestrator.errors import PystackError

FILL = ".filled"
SMALLEST = 64 << 20
LAZY = "lazy_itable_init=1,lazy_journal_init=1"


def insert(image: Path, size: int, goal: Path) -> None:
    """Mount the disk *image* at *goal*; it is made with *size* bytes if it does not exist, with project
    quotas where the kernel has them. Raises PystackError."""
    if os.path.ismount(goal):
        return
    new = not image.exists()
    if new:
        _make(image, size, "-O", "quota,project", "-E", f"quotatype=prjquota,{LAZY}")
    try:
        return _run("mount", "-o", "loop,prjquota", str(image), str(goal))
    except PystackError:  # a kernel without quotas, or a disk that was made on one
        if new:
            _make(image, size, "-E", LAZY)
    _run("mount", "-o", "loop", str(image), str(goal))


def _make(image: Path, size: int, *how: str) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-I", "256", *how, str(image))


def unmount(goal: Path) -> None:
    """Unmount everything that is mounted at *goal*, if anything is. Raises PystackError."""
    while os.path.ismount(goal):
        _run("umount", "-l", str(goal))


def fill(goal: Path, leave: int) -> None:
    """Fill the disk at *goal* until only *leave* bytes are free, with blocks that are reserved but not written: they cost the
    host no space. Raises PystackError."""
    if not os.path.ismount(goal):
        raise PystackError("the machines of this lab have no disks of their own: make one with `pystack lab up --disk 1g`")
    handle = os.open(goal / FILL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, 0)
        there = os.fstatvfs(handle)
        step, end = max(there.f_bavail * there.f_frsize - leave, 0), 0
        while step >= there.f_frsize:
            try:
                os.posix_fallocate(handle, end, step)
                end += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            # the map of reserved blocks needs blocks itself
            left = os.fstatvfs(handle)
            step = min(step // 2, max(left.f_bavail * left.f_frsize - leave, 0))
    finally:
        os.close(handle)


def free(goal: Path) -> None:
    """Undo `fill`."""
    with contextlib.suppress(FileNotFoundError):
        (goal / FILL).unlink()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PystackError(f"{' '.join(words)}: {done.stderr.strip()}")
