"""The table of attacks: what is tried, what holds it, and how that is put off to show that the attack is a real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """An attack from inside a container. *attack* is a function of inside.py; it is tried in the container *on*, where it must
    fail with one of *answers*, and in the container *off*, where it must succeed. Both name rows of CONTAINERS."""

    attack: str
    what: str
    guard: str
    off: str
    on: str = "default"
    answers: tuple[str, ...] = ("EPERM",)


CONTAINERS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "privileged": {"privileged": True},
    "admin": {"cap_add": ["SYS_ADMIN"]},
    "unconfined": {"security_opt": ["seccomp=unconfined"]},
    "admin unconfined": {"cap_add": ["SYS_ADMIN"], "security_opt": ["seccomp=unconfined"]},
}
"""Containers by the keys of a stack file that differ from the default."""

ROWS = (
    Row("mount_tmpfs", "mounts a file system", "no CAP_SYS_ADMIN, seccomp", "admin"),
    Row("umount_mask", "unmounts what hides /proc/timer_list", "no CAP_SYS_ADMIN, seccomp", "admin"),
    Row("pivot_root", "changes its root", "seccomp", "admin unconfined"),
    Row("unshare_user", "makes a user namespace, where it would have all capabilities", "seccomp", "unconfined"),
    Row("keyctl", "asks the kernel for keys", "seccomp", "unconfined"),
    Row("write_core_pattern", "names the program that the kernel runs for a core dump", "/proc/sys is read-only", "privileged",
        answers=("EROFS",)),
)
