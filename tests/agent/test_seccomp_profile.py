"""Seccomp profiles in Docker's JSON: what of one concerns this machine and this container, and what is refused."""

from __future__ import annotations

import json

import pytest

from agent.errors import BadRequestError
from agent.isolation import seccomp
from agent.isolation.seccomp_profile import parse, resolve

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["old"], "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "5.0", "arches": ["s390x"]}},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
    ],
}
TEXT = json.dumps(PROFILE)


def names(*, caps: tuple[str, ...] = (), machine: str = "x86_64", release: str = "6.18.44-fc") -> list[str]:
    return [name for rule in resolve(parse(TEXT, "p"), caps, machine, release)["syscalls"] for name in rule["names"]]


def test_rules_are_for_those_that_they_name() -> None:
    assert names() == ["read", "write", "ptrace", "arch_prctl", "clone3", "clone"]
    assert names(machine="aarch64") == ["read", "write", "ptrace", "clone3", "clone"]
    assert names(release="4.7.9") == ["read", "write", "arch_prctl", "clone3", "old", "clone"]
    assert "bpf" not in names(caps=("CAP_BPF",))
    both = names(caps=("CAP_BPF", "CAP_SYS_ADMIN"))
    assert "bpf" in both
    assert "clone3" not in both


def test_the_machine_has_its_own_architectures() -> None:
    assert resolve(parse(TEXT, "p"), (), "aarch64", "6.1")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "architectures" not in resolve(parse(TEXT, "p"), (), "riscv64", "6.1")


def test_what_the_runtime_gets_has_nothing_of_dockers_own() -> None:
    made = resolve(parse(TEXT, "p"), (), "x86_64", "6.1")
    assert made["defaultErrnoRet"] == 1
    assert {key for rule in made["syscalls"] for key in rule} == {"names", "action", "errnoRet", "args"}
    assert made["syscalls"][-1]["args"] == [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}]


WRONG = {
    "no JSON": "{",
    "no action": "{}",
    "an unknown action": {"defaultAction": "ALLOW"},
    "a listener": {"defaultAction": "SCMP_ACT_NOTIFY"},
    "an unknown key": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"},
    "both architectures and archMap": {**PROFILE, "architectures": ["SCMP_ARCH_X86"]},
    "a strange architecture": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]},
    "a strange flag": {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["-x"]},
    "name and names": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}],
    },
    "a strange name": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a b", "action": "SCMP_ACT_ALLOW"}]},
    "argument 6": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}],
    },
    "no version": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}],
    },
    "a bomb": "[" * 200_000,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_profile_is_refused(text: object) -> None:
    with pytest.raises(BadRequestError, match="seccomp profile p: "):
        parse(text if isinstance(text, str) else json.dumps(text), "p")


def test_strict_allows_less_than_the_default() -> None:
    def allowed(option: str) -> set[str]:
        profile = seccomp.resolve([option], (), privileged=False)
        assert profile
        rules = profile["syscalls"]
        return {n for r in rules if r["action"] == "SCMP_ACT_ALLOW" for n in r["names"]}  # type: ignore[attr-defined]

    assert allowed("seccomp=strict") < allowed("seccomp=builtin")
    assert not {"ptrace", "process_vm_readv", "mknod", "name_to_handle_at"} & allowed("seccomp=strict")
    assert {"read", "clone", "execve", "futex"} <= allowed("seccomp=strict")
    assert seccomp.resolve(["seccomp=unconfined"], (), privileged=False) is None
    assert seccomp.resolve(["seccomp=builtin"], (), privileged=True) is not None
