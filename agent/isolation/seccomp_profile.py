"""Seccomp profiles in Docker's JSON, made into what the OCI runtime takes: only what concerns this machine and this container.

A rule may say for which capabilities, architectures and kernels it is (`includes`), and for which it is not (`excludes`);
`archMap` names the architectures that go with the machine's own. The author of a profile may be hostile: what is not of the
format is refused with its place, before any runtime reads it.
Source: Docker, "Seccomp security profiles for Docker"; OCI Runtime Specification 1.2, config-linux.md, "Seccomp"; seccomp(2).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection
from typing import Any

import msgspec

from agent.errors import BadRequestError

MOST_BYTES = 1 << 20
ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRAP", "TRACE")  # NOTIFY needs a listener
)
OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
FLAGS = frozenset(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "armv7l": "SCMP_ARCH_ARM", "i686": "SCMP_ARCH_X86"}
GO = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""This machine in libseccomp's words, and in Go's, which `arches` uses."""
_ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]{2,20}")
_CALL = re.compile(r"[a-z0-9_]{1,64}")
_KERNEL = re.compile(r"(\d{1,4})\.(\d{1,4})")


class Argument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """A condition on argument number *index* (0 to 5) of a call."""

    index: int
    value: int = 0
    value_two: int = 0
    op: str

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise ValueError(f"argument {self.index} does not exist: 0 to 5")
        if self.op not in OPERATORS:
            raise ValueError(f"op {self.op[:40]!r} is not known: one of {', '.join(sorted(OPERATORS))}")
        if not (0 <= self.value < 1 << 64 and 0 <= self.value_two < 1 << 64):
            raise ValueError("a value has 64 bits")


class Scope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Capabilities (CAP_…), architectures in Go's words, and the oldest kernel (`4.8`)."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""

    def __post_init__(self) -> None:
        if self.min_kernel and not _KERNEL.fullmatch(self.min_kernel):
            raise ValueError(f"minKernel {self.min_kernel[:40]!r} is not a version such as 4.8")

    @property
    def kernel(self) -> tuple[int, int] | None:
        """The version of *min_kernel*; None if there is none."""
        return version(self.min_kernel) if self.min_kernel else None


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What becomes of calls: *action*, where their *args* are so, in a container that is in the scope."""

    names: tuple[str, ...] = ()
    name: str = ""
    action: str
    errno_ret: int | None = None
    args: tuple[Argument, ...] | None = None
    comment: str = ""
    includes: Scope = Scope()
    excludes: Scope = Scope()

    def __post_init__(self) -> None:
        if bool(self.names) == bool(self.name):
            raise ValueError("a rule has either name or names")
        for call in (*self.names, self.name):
            if call and not _CALL.fullmatch(call):
                raise ValueError(f"{call[:40]!r} is not a name of a system call")
        check_action(self.action, self.errno_ret)

    def applies(self, capabilities: Collection[str], arch: str, kernel: tuple[int, int]) -> bool:
        """Whether the rule is for a container with *capabilities* on a machine of *arch* with this *kernel*."""
        yes, no = self.includes, self.excludes
        if any(c in capabilities for c in no.caps) or arch in no.arches or (no.kernel and kernel >= no.kernel):
            return False
        if (yes.arches and arch not in yes.arches) or (yes.kernel and kernel < yes.kernel):
            return False
        return all(c in capabilities for c in yes.caps)


class ArchMap(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An architecture with those that its machines run too."""

    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A profile as Docker has it."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    arch_map: tuple[ArchMap, ...] = ()
    flags: tuple[str, ...] = ()
    syscalls: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        check_action(self.default_action, self.default_errno_ret)
        if self.architectures and self.arch_map:
            raise ValueError("a profile has either architectures or archMap")
        named = [*self.architectures, *(a for m in self.arch_map for a in (m.architecture, *(m.sub_architectures or ())))]
        for word in named:
            if not _ARCHITECTURE.fullmatch(word):
                raise ValueError(f"{word[:40]!r} is not an architecture such as SCMP_ARCH_X86_64")
        for flag in self.flags:
            if flag not in FLAGS:
                raise ValueError(f"flag {flag[:60]!r} is not known: one of {', '.join(sorted(FLAGS))}")


def check_action(action: str, errno: int | None) -> None:
    """Raises ValueError if no runtime can do *action*."""
    if action == "SCMP_ACT_NOTIFY":
        raise ValueError("SCMP_ACT_NOTIFY needs a program that answers, and there is none here")
    if action not in ACTIONS:
        raise ValueError(f"action {action[:40]!r} is not known: one of {', '.join(sorted(ACTIONS))}")
    if errno is not None and not 0 <= errno <= 4095:
        raise ValueError(f"errno {errno} does not exist")


def version(text: str) -> tuple[int, int]:
    """(6, 18) of `6.18.44-custom`. Raises ValueError."""
    match = _KERNEL.match(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a version of a kernel")
    return int(match[1]), int(match[2])


def parse(text: str | bytes, where: str) -> Profile:
    """The profile in *text*, which lies at *where*. Raises BadRequestError with the place of what is wrong."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MOST_BYTES:
        raise BadRequestError(f"seccomp profile {where}: it has more than {MOST_BYTES} bytes")
    try:
        return msgspec.json.decode(raw, type=Profile)
    except RecursionError:
        raise BadRequestError(f"seccomp profile {where}: it is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequestError(f"seccomp profile {where}: {error}") from None


def resolve(
    profile: Profile, capabilities: Collection[str], machine: str = platform.machine(), release: str = platform.release()
) -> dict[str, Any]:
    """`linux.seccomp` of the OCI runtime specification: *profile* for a container with *capabilities* (CAP_ names), on a
    *machine* (uname -m) with the kernel *release*."""
    native, kernel = NATIVE.get(machine, ""), version(release)
    architectures = list(profile.architectures)
    for entry in profile.arch_map:
        if entry.architecture == native:
            architectures += [entry.architecture, *(entry.sub_architectures or ())]
    rules: list[dict[str, Any]] = []
    for rule in profile.syscalls:
        if rule.applies(capabilities, GO.get(machine, machine), kernel):
            made: dict[str, Any] = {"names": list(rule.names or (rule.name,)), "action": rule.action}
            if rule.errno_ret is not None:
                made["errnoRet"] = rule.errno_ret
            if rule.args:
                made["args"] = [msgspec.to_builtins(a) for a in rule.args]
            rules.append(made)
    out: dict[str, Any] = {"defaultAction": profile.default_action, "syscalls": rules}
    if profile.default_errno_ret is not None:
        out["defaultErrnoRet"] = profile.default_errno_ret
    if architectures:
        out["architectures"] = architectures
    return out | ({"flags": list(profile.flags)} if profile.flags else {})
