"""The host's control groups: their hierarchies, a container's values, and the removal of empty ones.

Version 1 has one hierarchy for each controller, version 2 one for all; a hybrid host has both. Source: cgroups(7).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@functools.cache
def unified() -> bool:
    """Version 2 has the controllers."""
    return (ROOT / "cgroup.controllers").exists()


@functools.cache
def hierarchies() -> tuple[Path, ...]:
    """Mount points of all hierarchies that this process sees."""
    if unified():
        return (ROOT,)
    if not ROOT.is_dir():
        return ()
    return tuple(sorted(p for p in ROOT.iterdir() if (p / "cgroup.procs").exists() and not p.is_symlink()))


def hybrid() -> bool:
    """Version 1, with a version 2 hierarchy that has no controllers beside it."""
    return not unified() and (ROOT / "unified" / "cgroup.procs").exists()


@functools.cache
def delegated() -> str:
    """The topmost group above this process that its user may change, "" if there is none. Source: cgroups(7), delegation;
    systemd delegates the groups below user@UID.service."""
    if not unified():
        return ""
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/")
    found = ""
    for group in (Path(own), *Path(own).parents):
        if not os.access(ROOT / str(group).lstrip("/") / "cgroup.procs", os.W_OK):
            break
        found = str(group)
    return found


@functools.cache
def _own() -> Path | None:
    """The file that moves this process to the group that it is in already, in one hierarchy."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if unified() == (not controllers):
            path = directory(controllers.removeprefix("name="), group) / "cgroup.procs"
            if os.access(path, os.W_OK):
                return path
    return None


def anticipate() -> None:
    """Call before a process will be moved into a group, so that the kernel begins early what the move waits for.

    The first move after a while waits for an RCU grace period, some 7 to 20 ms, before it has the lock that holds off forks
    (cgroup_threadgroup_rwsem); moves soon after do not wait. A move of this process to its own group takes the lock as well,
    while the runtime is still being loaded."""
    with contextlib.suppress(OSError):
        if path := _own():
            path.write_text(str(os.getpid()))


def directory(controller: str, group: str) -> Path:
    """Where *controller* keeps *group* (a path from the root of the hierarchy)."""
    return (ROOT if unified() else ROOT / controller) / group.lstrip("/")


def remove(group: str) -> bool:
    """Remove *group* and all groups below it from every hierarchy. Returns False if a process is still in it."""
    for hierarchy in hierarchies():
        top = hierarchy / group.lstrip("/")
        for path, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError:
                return False
    if not unified():
        # where the version 2 hierarchy is hidden from crun, it writes to the directory beneath
        shutil.rmtree(ROOT / "unified" / group.lstrip("/"), ignore_errors=True)
    return True
