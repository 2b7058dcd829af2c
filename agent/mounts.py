"""mount(2) and what it needs: overlay roots, binds, and the table of what is mounted."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from agent.errors import AgentError

_libc = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2
PAGE = 4096


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, data.encode()) < 0:
        code = ctypes.get_errno()
        raise AgentError(f"mount {kind} at {target}: {os.strerror(code)}")


def overlay(target: Path, lower: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount an overlay: *lower* from the bottom layer to the top one, writes to *upper*."""
    layers = ":".join(str(path) for path in reversed(lower))
    data = f"lowerdir={layers},upperdir={upper},workdir={work}"
    if len(data) >= PAGE:
        raise AgentError(f"the image has {len(lower)} layers, more than one mount call can name: flatten it")
    mount("overlay", target, "overlay", 0, data)


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
