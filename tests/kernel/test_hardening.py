"""`x-harden: strict` and seccomp profiles of the client, seen from inside a container."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel


def test_a_strict_service_has_no_right_that_it_does_not_ask_for(stack: Stack) -> None:
    stack.up("services: {a: {image: busybox, command: sleep 1000, stop_grace_period: 0s, x-harden: strict}}")
    status = dict(line.split(":\t", 1) for line in stack.exec("a", "cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert [status[k] for k in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")] == ["0" * 16, "0" * 16, "1", "2"]
    assert stack.exec("a", "cat", "/proc/self/uid_map").split()[1] != "0"
    assert stack.run("exec", "-T", "a", "touch", "/file", check=False).returncode != 0
    stack.exec("a", "touch", "/tmp/file", "/run/file", "/var/tmp/file")
    assert stack.run("exec", "-T", "a", "mknod", "/tmp/fifo", "p", check=False).returncode != 0


def test_a_profile_of_the_client_is_kept_on_the_node(stack: Stack) -> None:
    rules = [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["rmdir", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ]
    architectures = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "archMap": architectures, "syscalls": rules}
    (stack.directory / "profile.json").write_text(json.dumps(profile))
    stack.up(
        "services: {a: {image: busybox, command: sleep 1000, stop_grace_period: 0s, security_opt: ['seccomp=profile.json']}}"
    )
    done = stack.run("exec", "-T", "a", "mkdir", "/srv/new", check=False)
    assert done.returncode != 0
    assert "Function not implemented" in done.stderr
    stack.exec("a", "rm", "/srv/hello")
    profile["syscalls"] = [{"names": ["x"], "action": "NO"}]
    (stack.directory / "profile.json").write_text(json.dumps(profile))
    done = stack.run("up", check=False)
    assert done.returncode == 1
    assert "action 'NO' is not known" in done.stderr
