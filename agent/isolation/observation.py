"""Containers whose system calls are reported: the seccomp profile that reports them, and the smallest one that allows them.

A container with `security_opt: [seccomp=observe]` may do what the default profile allows, but each call is reported to a
recorder (`recorder.py`) before it goes on. The profile of it is Docker's JSON. Pure, but for `begin`.
Source: seccomp_unotify(2); OCI Runtime Specification 1.2, config-linux.md, "The Container Process State".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import msgspec

from agent.errors import RuntimeFailureError
from agent.processes import ChildProcess

WORD = "observe"
ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")
UNREPORTED = "write"
"""A runtime tells the number of the listener by this call, when the filter is in force already: runc refuses to report it."""
RUNTIME = """
    access arch_prctl brk capget capset chdir clone close dup2 dup3 epoll_create1 epoll_ctl epoll_pwait execve exit exit_group
    faccessat2 fchdir fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpid getppid getrandom gettid getuid
    kill lseek madvise mmap mprotect munmap nanosleep newfstatat openat pipe2 prctl pread64 prlimit64 read readlinkat rseq
    rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list set_tid_address setgid setgroups
    setresgid setresuid setuid sigaltstack tgkill wait4 write
    """
"""What runc, crun and a dynamic loader may call under the filter, in one run or another, before a program's own first
instruction and when something is executed in the container."""
_WAITS: set[asyncio.Task[int]] = set()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a container whose calls are reported: their names, and the smallest *profile* that has them; *default*
    is how many names the default profile allows."""

    calls: tuple[str, ...]
    profile: Mapping[str, Any]
    default: int


def reporting(profile: Mapping[str, Any]) -> dict[str, Any]:
    """*profile* with each call reported that it allows."""
    rules: list[dict[str, Any]] = []
    for rule in profile["syscalls"]:
        if rule["action"] != "SCMP_ACT_ALLOW":
            rules.append(rule)
            continue
        reported = [n for n in rule["names"] if n != UNREPORTED]
        if len(reported) < len(rule["names"]):
            rules.append({**rule, "names": [UNREPORTED]})
        if reported:
            rules.append({**rule, "names": reported, "action": "SCMP_ACT_NOTIFY"})
    return {**profile, "syscalls": rules}


def names(profile: Mapping[str, Any]) -> set[str]:
    """The calls that *profile* allows or reports."""
    allowed = ("SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY")
    return {name for rule in profile["syscalls"] if rule["action"] in allowed for name in rule["names"]}


def smallest(reported: Mapping[str, Any], calls: Collection[str]) -> dict[str, Any]:
    """Of the profile *reported*, which reports, the part that allows *calls*, and what a runtime needs; conditions on arguments
    stay, and so do calls that fail in a way of their own."""
    kept = {*RUNTIME.split(), *calls}
    rules: list[dict[str, Any]] = []
    plain: set[str] = set()
    for rule in reported["syscalls"]:
        if rule["action"] not in ("SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"):
            rules.append(rule)
        elif few := sorted(kept & set(rule["names"])):
            if rule.get("args"):
                rules.append({**rule, "names": few, "action": "SCMP_ACT_ALLOW"})
            else:
                plain |= set(few)
    known = {key: reported[key] for key in ("defaultAction", "defaultErrnoRet", "architectures") if key in reported}
    return {**known, "syscalls": [{"names": sorted(plain), "action": "SCMP_ACT_ALLOW"}, *rules]}


def read(bundle: Path) -> Observed | None:
    """What was seen of the container of *bundle* until now; None if it is not observed."""
    try:
        document = msgspec.json.decode((bundle / "config.json").read_bytes())
        profile = document["linux"]["seccomp"]
        if "listenerPath" not in profile:
            return None
        raw = (bundle / "calls.json").read_bytes()
    except (OSError, KeyError):
        return None
    calls = tuple(sorted(msgspec.json.decode(raw, type=list[str])))
    return Observed(calls=calls, profile=smallest(profile, calls), default=len(names(profile)))


def missing(actions: Path = ACTIONS) -> str:
    """Why this kernel cannot report calls; "" if it can."""
    with contextlib.suppress(OSError):
        if "user_notif" in actions.read_text().split():
            return ""
    return "this node's kernel cannot report system calls: seccomp's action user_notif comes with Linux 5.0"


def begin(listener: Path, bundle: Path) -> None:
    """Start the recorder of the container of *bundle*, which is about to be created; it ends with the container.

    Raises RuntimeFailureError."""
    if problem := missing():
        raise RuntimeFailureError(problem)
    listener.parent.mkdir(exist_ok=True, mode=0o700)
    listener.unlink(missing_ok=True)
    (bundle / "calls.json").write_bytes(b"[]")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(os.fspath(listener))
        one.listen(16)
        child = ChildProcess(
            *(sys.executable, "-E", "-s", "-m", "agent.isolation.recorder", str(one.fileno()), str(bundle / "calls.json")),
            pass_fds=(one.fileno(),),
            stdin=DEVNULL,
            stdout=DEVNULL,
            start_new_session=True,
        )
    wait = asyncio.get_running_loop().create_task(child.wait())
    _WAITS.add(wait)
    wait.add_done_callback(_WAITS.discard)


def asked(security_opt: Iterable[str]) -> bool:
    """Whether the calls of a container are to be reported."""
    return f"seccomp={WORD}" in {o.replace(":", "=", 1) for o in security_opt}
