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


def insert(image: Path, size: int, goal: Path) -> None:
    """Mount the disk *image* at *goal*; it is made with *size* bytes if it does not exist. Raises PystackError."""
    if os.path.ismount(goal):
        return
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size)
        lazy = "lazy_itable_init=1,lazy_journal_init=1"
        _run("mkfs.ext4", "-q", "-m", "0", "-E", lazy, str(image))
    _run("mount", "-o", "loop", str(image), str(goal))


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
