"""Capability sets. Source: capabilities(7); Docker's documented default set of fourteen."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from agent.errors import BadRequestError

ALL = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
DEFAULT = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)


def _names(asked: Sequence[str]) -> list[str]:
    names = [name.upper().removeprefix("CAP_") for name in asked]
    for name in names:
        if name != "ALL" and name not in ALL:
            raise BadRequestError(f"capability {name!r} does not exist: see capabilities(7)")
    return names


@functools.cache
def held() -> frozenset[str]:
    """Capabilities of this process: a container can be given no others."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for number, name in enumerate(ALL) if bits >> number & 1)
    return frozenset(ALL)


def resolve(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> list[str]:
    """The container's capabilities with their CAP_ prefix. `cap_drop: [ALL]` with additions leaves the additions."""
    added, dropped = _names(add), _names(drop)
    if privileged:
        wanted = set(ALL)
    else:
        base = set() if "ALL" in dropped else set(DEFAULT)
        wanted = (set(ALL) if "ALL" in added else base - set(dropped) | set(added)) - {"ALL"}
        if "ALL" in added:
            wanted -= set(dropped)
    return [f"CAP_{name}" for name in ALL if name in wanted & held()]


def sets(caps: Sequence[str], uid: int) -> dict[str, list[str]]:
    """The capability sets of a process: all of *caps* for root, none in force for others.

    Inheritable and ambient stay empty (CVE-2022-24769)."""
    if uid != 0:
        return {"bounding": list(caps)}
    return {"bounding": list(caps), "effective": list(caps), "permitted": list(caps)}
