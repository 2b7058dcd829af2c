"""A cgroup subtree for each machine of a lab, on v1, v2 and hybrid hosts. Source: cgroups(7), cgroup_namespaces(7)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

PARENT = "pystack-lab"


class Hierarchy(msgspec.Struct, frozen=True):
    """One mounted hierarchy: where, v1 or v2, and v1's mount options."""

    path: Path
    unified: bool
    options: str


def hierarchies() -> list[Hierarchy]:
    """The hierarchies that this host has mounted, in the order of /proc/self/mountinfo."""
    out = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        path = Path(left.split(" ")[4])
        words = [o for o in options.split(",") if o not in ("rw", "ro") and not o.startswith("release_agent")]
        if any(o.startswith("name=") for o in words):
            words = ["none", *words]
        out.append(Hierarchy(path, kind == "cgroup2", ",".join(dict.fromkeys(words))))
    return out


def create(lab: str, machine: str) -> None:
    """Make the subtree of a machine; on v2, with all controllers enabled."""
    for h in hierarchies():
        current = h.path
        for part in (PARENT, lab, machine):
            if h.unified:
                _enable(current)
            current = current / part
            current.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not h.unified and (current / name).exists() and not (current / name).read_text().strip():
                    (current / name).write_text((current.parent / name).read_text())


def _enable(directory: Path) -> None:
    for controller in (directory / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def enter(lab: str, machine: str) -> None:
    """Move this process into the subtree, before it unshares its cgroup namespace; or into the child that `settle` made."""
    for h in hierarchies():
        top = h.path / PARENT / lab / machine
        home = top / "init" if (top / "init").is_dir() else top
        (home / "cgroup.procs").write_text(str(os.getpid()))


def settle(root: Path) -> None:
    """On v2 a group with children may have no process: move this one into a child, and enable the controllers for children."""
    if (root / "cgroup.controllers").exists():
        (root / "init").mkdir(exist_ok=True)
        (root / "init" / "cgroup.procs").write_text("0")
        _enable(root)


def thaw(lab: str, machine: str) -> None:
    """Thaw all processes of a machine: on v1 a frozen process ignores even SIGKILL (v1's freezer-subsystem.rst)."""
    for h in hierarchies():
        for state in (h.path / PARENT / lab / machine).rglob("freezer.state"):
            with contextlib.suppress(OSError):
                state.write_text("THAWED")


def remove(lab: str) -> None:
    """Delete the subtrees of a lab, deepest first; one that is still busy is tried again for two seconds."""
    import time

    for h in hierarchies():
        top = h.path / PARENT / lab
        for _ in range(100):
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
            if not top.exists():
                break
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            (h.path / PARENT).rmdir()
