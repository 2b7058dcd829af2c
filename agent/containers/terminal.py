"""Sets the size of the terminal of a process inside a container, which is the process's standard input.

A runtime makes the terminal of a command itself, and not every one passes a new size on. A copy of the process's descriptor
serves as well. Source: pidfd_getfd(2), ioctl_tty(2).
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

from netplugins.linux.syscalls import libc
from netplugins.linux.uapi import SYS_PIDFD_GETFD

PTS = range(136, 144)
"""Major numbers of pseudo-terminals. Source: kernel Documentation/admin-guide/devices.txt."""


def child_of(pid: int) -> int:
    """The first child of process *pid*, 0 if it has none."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(words[0]) if words else 0


def same_program(pid: int, other: int) -> bool:
    """Whether both processes execute the same file, or cannot be inspected (any more)."""
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.readlink(f"/proc/{other}/exe")
    except OSError:
        return True


def resize(pid: int, rows: int, columns: int) -> bool:
    """Set the size of the terminal that is *pid*'s standard input; False if that is not a terminal (yet), or gone."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        fd = libc.syscall(SYS_PIDFD_GETFD, process, 0, 0)
    finally:
        os.close(process)
    if fd < 0:
        return False
    try:
        # the program may have put anything there: only a pseudo-terminal is spoken to
        if os.major(os.fstat(fd).st_rdev) not in PTS:
            return False
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
