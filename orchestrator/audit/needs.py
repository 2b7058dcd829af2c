"""What a service needs beyond `x-harden: strict`: candidates from what one run of it did, and the smallest set that keeps it
running. Pure: whether a set does is asked of the caller."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from agent.contract.container import Container, Mount
from orchestrator.stackfile.hardening import WRITABLE, strict_fields

T = TypeVar("T")

CALLS_OF = {
    "AUDIT_WRITE": "sendto sendmsg",
    "CHOWN": "chown fchown lchown fchownat",
    "DAC_OVERRIDE": "open openat creat mkdir mkdirat unlink unlinkat rename renameat renameat2"
    " access faccessat faccessat2 connect",
    "FOWNER": "chmod fchmod fchmodat utime utimes utimensat unlink unlinkat rename renameat renameat2 setxattr",
    "FSETID": "chmod fchmod fchmodat chown fchown fchownat",
    "IPC_LOCK": "mlock mlock2 mlockall shmctl mmap",
    "KILL": "kill tkill tgkill",
    "MKNOD": "mknod mknodat",
    "NET_ADMIN": "sendto sendmsg setsockopt ioctl",
    "NET_BIND_SERVICE": "bind",
    "NET_RAW": "socket",
    "SETFCAP": "setxattr fsetxattr lsetxattr",
    "SETGID": "setgid setregid setresgid setfsgid setgroups",
    "SETPCAP": "prctl capset",
    "SETUID": "setuid setreuid setresuid setfsuid",
    "SYS_ADMIN": "",
    "SYS_CHROOT": "chroot",
    "SYS_NICE": "setpriority sched_setscheduler sched_setparam sched_setaffinity sched_setattr ioprio_set",
    "SYS_PTRACE": "ptrace process_vm_readv process_vm_writev openat open",
    "SYS_RESOURCE": "setrlimit prlimit64",
}
"""Calls that the kernel lets pass by a capability, or by it alone in some case. Source: capabilities(7)."""
DEFAULT = (
    "NET_RAW",
    "MKNOD",
    "SETFCAP",
    "SETPCAP",
    "AUDIT_WRITE",
    "SYS_CHROOT",
    "FSETID",
    "KILL",
    "DAC_OVERRIDE",
    "FOWNER",
    "CHOWN",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
)
"""Docker's fourteen, from the one that is given least gladly on."""


class Need(msgspec.Struct, frozen=True):
    """One value of one key of a service: with strict, it is what the service cannot do without."""

    key: str
    value: str


class Written(msgspec.Struct, frozen=True):
    """A folder of the root in which something was written; *holds* is whether the image has something in there."""

    folder: str
    holds: bool


WIDE = (Need("userns_mode", "host"), Need("security_opt", "no-new-privileges:false"))
"""What any service might need, by reasons that no call shows: IDs of its files, programs that change their user."""


def strict(container: Container) -> Container:
    """*container* as `x-harden: strict` has it, without any capability."""
    own = ("no-new-privileges", "seccomp=strict", "seccomp:strict")
    options = tuple(o for o in container.security_opt if not o.startswith(own))
    modes = {"pid": container.pid_mode, "ipc": container.ipc_mode, "network_mode": container.network_mode}
    if container.userns_mode == "host":
        modes["userns_mode"] = "host"
    fields: dict[str, Any] = {"mounts": container.mounts, "security_opt": options}
    if container.pids:
        fields["pids"] = container.pids
    return msgspec.structs.replace(container, **strict_fields(modes, fields), cap_add=(), privileged=False)


def loose(container: Container) -> Container:
    """*container* without strict's fences, its calls reported."""
    options = tuple(o for o in container.security_opt if not o.startswith("no-new-privileges"))
    drop = tuple(c for c in container.cap_drop if c.upper() != "ALL")
    memory = {m.target for m in container.mounts if m.kind == "tmpfs" and m.target in WRITABLE}
    return msgspec.structs.replace(
        observed(msgspec.structs.replace(container, security_opt=options)),
        cap_drop=drop,
        read_only=False,
        userns_mode="",
        mounts=tuple(m for m in container.mounts if m.target not in memory),
    )


def observed(container: Container) -> Container:
    """*container* as it is, its calls reported."""
    return confined(container, "observe")


def confined(container: Container, profile: str) -> Container:
    """*container* with the seccomp profile *profile* in place of its own."""
    options = tuple(o for o in container.security_opt if not o.startswith("seccomp"))
    return msgspec.structs.replace(container, security_opt=(*options, f"seccomp={profile}"))


def candidates(
    container: Container, calls: Collection[str], written: Iterable[Written], *, beyond_strict: Collection[str]
) -> list[Need]:
    """What *container* might need, from what is given least gladly on; *beyond_strict* are those of its *calls* that strict's
    profile has not."""
    asked = [c.upper().removeprefix("CAP_") for c in container.cap_add]
    capabilities = [c for c in asked if c != "ALL" and c not in DEFAULT]
    capabilities += [c for c in DEFAULT if set(CALLS_OF[c].split()) & set(calls)]
    out = [n for n in WIDE if n != Need("userns_mode", container.userns_mode)]
    if beyond_strict:
        out.append(Need("security_opt", "seccomp=builtin"))
    out += [Need("cap_add", c) for c in capabilities]
    return out + [Need("volumes" if w.holds else "tmpfs", w.folder) for w in written]


def given(container: Container, needs: Iterable[Need]) -> Container:
    """The strict *container* with *needs*."""
    out = container
    for need in needs:
        match need.key:
            case "cap_add":
                out = msgspec.structs.replace(out, cap_add=(*out.cap_add, need.value))
            case "security_opt":
                name = need.value.replace(":", "=", 1).partition("=")[0]
                kept = tuple(o for o in out.security_opt if o.replace(":", "=", 1).partition("=")[0] != name)
                out = msgspec.structs.replace(out, security_opt=(*kept, need.value))
            case "userns_mode":
                out = msgspec.structs.replace(out, userns_mode="host")
            case "tmpfs" | "volumes" as key:
                mount = Mount(kind="tmpfs" if key == "tmpfs" else "volume", target=need.value)
                out = msgspec.structs.replace(out, mounts=(*out.mounts, mount))
    return out


def smallest(wanted: Sequence[T], enough: Callable[[Sequence[T]], bool]) -> list[T]:
    """A set out of *wanted*, which is enough where nothing is not, of which none can be left out; what stands first is left out
    most gladly.

    *enough* is asked about k·log2(n) times where k of n are kept. Source: U. Junker, QuickXplain (AAAI 2004)."""

    def search(kept: list[T], rest: Sequence[T], *, changed: bool) -> list[T]:
        if changed and enough(kept):
            return []
        if len(rest) == 1:
            return list(rest)
        middle = len(rest) // 2
        first, second = rest[:middle], rest[middle:]
        of_first = search([*kept, *second], first, changed=True)
        of_second = search([*kept, *of_first], second, changed=bool(of_first))
        return of_first + of_second

    return search([], wanted, changed=False) if wanted else []


def folders(changes: Mapping[str, int], is_directory: Callable[[str], bool]) -> list[str]:
    """The folders in which the container wrote, none below another. *changes* are paths with Docker's kinds: 0 changed, 1
    added, 2 gone."""
    paths = set(changes)
    parents = {path.rpartition("/")[0] for path in paths}
    found = set()
    for path in paths - parents:
        if any(path == w or path.startswith(f"{w}/") for w in WRITABLE):
            continue
        top = path
        while changes.get(above := top.rpartition("/")[0]) == 1:
            top = above
        folder = top.rpartition("/")[0]
        if (changes[path] == 0 or not folder) and is_directory(path if changes[path] == 0 else top):
            folder = path if changes[path] == 0 else top
        if folder:
            found.add(folder)
    return sorted(f for f in found if not any(f.startswith(f"{g}/") for g in found))


def lines(service: str, needs: Sequence[Need]) -> str:
    """The part of a stack file to paste."""
    keys: dict[str, list[str]] = {}
    for need in needs:
        keys.setdefault(need.key, []).append(need.value)
    out = ["services:", f"  {service}:", "    x-harden: strict"]
    for key in ("cap_add", "security_opt", "userns_mode", "tmpfs", "volumes"):
        values = sorted(keys.get(key, ()))
        if key == "userns_mode" and values:
            out.append(f"    {key}: {values[0]}")
        elif values:
            out.append(f"    {key}: [{', '.join(json.dumps(v) if ':' in v else v for v in values)}]")
    return "\n".join(out)
