"""`pystack doctor --host`: one sentence and a remedy for what keeps a machine from being a host."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import hostcheck
from orchestrator.cli import host, starting
from orchestrator.errors import PystackError
from orchestrator.lab import up as lab_up

ROOT = Path(__file__).parents[2]


def doctor(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "doctor", "--host", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine_is_looked_at_with_no_server() -> None:
    rows = json.loads(doctor("--format", "json").stdout)
    assert {"kernel", "python", "user", "program", "cgroup", "disk", "memory"} <= {row["check"] for row in rows}
    for row in rows:
        assert set(row) == {"check", "target", "ok", "detail", "fix", "host"}
        assert row["ok"] or row["fix"], row


def test_what_is_missing_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcheck, "which", lambda name: None)
    told = {row["target"]: row["fix"] for row in hostcheck.examine() if row["check"] == "program"}
    command = hostcheck.distribution()[1]
    assert told["runc or crun"] == f"{command} runc"
    assert told["nft"] == f"{command} nftables"


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n', "apt-get install"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux 9"\n', "dnf install"),
        ("", "install"),
    ],
)
def test_the_distributions_own_command_is_named(monkeypatch: pytest.MonkeyPatch, lines: str, command: str) -> None:
    monkeypatch.setattr(hostcheck, "_read", lambda path: lines)
    assert hostcheck.distribution()[1] == command


def test_a_full_disk_and_one_for_reading_alone_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hostcheck._disk(str(tmp_path / "not/yet"))["target"] == str(tmp_path)
    monkeypatch.setattr(hostcheck, "ROOM_BYTES", 1 << 62)
    full = hostcheck._disk(str(tmp_path))
    assert not full["ok"]
    assert "GB are free" in full["detail"]


def test_ufw_without_the_port_of_overlays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/etc/ufw/ufw.conf": "ENABLED=yes\n", "/etc/ufw/user.rules": ""}
    monkeypatch.setattr(hostcheck, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(hostcheck, "_output_of", lambda *words: (127, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (row,) = hostcheck._firewalls()
    assert "accepts no 4789/udp" in row["detail"]
    assert row["fix"].startswith("ufw allow from")
    files["/etc/ufw/user.rules"] = "-A ufw-user-input -p udp --dport 4789 -j ACCEPT"
    assert hostcheck._firewalls()[0]["fix"] == ""


@pytest.mark.parametrize(("off", "word"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_clock_off_by_an_hour_is_told(off: float, word: str) -> None:
    row = hostcheck.skew(1e9 + off, 1e9, "n2")
    assert not row["ok"]
    assert f"3600 s {word}" in row["detail"]
    assert hostcheck.skew(1e9 + 1, 1e9, "n2")["ok"]


def test_a_host_behind_nat_is_told_the_address_to_name() -> None:
    (far,) = host._way("root@127.0.0.1", "10.0.0.1 5000 10.0.0.7 22")
    assert far["fix"].startswith("`pystack node add root@127.0.0.1 --underlay 10.0.0.7`")
    (near,) = host._way("root@127.0.0.1", "127.0.0.1 5000 127.0.0.1 22")
    assert near["fix"] == ""


def test_the_checks_run_with_the_hosts_own_interpreter_and_nothing_else() -> None:
    source = Path(hostcheck.__file__).read_bytes()
    done = subprocess.run([sys.executable, "-I", "-S", "-"], input=source, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["time"] > 1e9
    assert answer["findings"]


@pytest.mark.parametrize(
    ("program", "words"),
    [("no-such-ssh", "is not here"), ("false", "gave no reason"), ("sh -c 'exit 127'", "no python3 there")],
)
def test_a_host_that_cannot_be_asked_is_one_sentence(program: str, words: str) -> None:
    done = doctor("root@nowhere.invalid", PYSTACK_SSH_COMMAND=program)
    assert done.returncode == 1
    assert words in done.stdout
    assert done.stderr == ""


def test_targets_are_for_host_alone() -> None:
    words = [sys.executable, "-m", "orchestrator", "doctor", "root@n2"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2


ORDINARY = {
    "/etc/subuid": "someone:100000:65536\n",
    "/etc/subgid": "someone:100000:65536\n",
    "/proc/sys/kernel/unprivileged_userns_clone": "1\n",
}


@pytest.mark.parametrize(
    ("changed", "target", "remedy"),
    [
        ({"/etc/subuid": "other:100000:65536\n"}, "/etc/subuid", "usermod --add-subuids"),
        ({"/etc/subgid": "someone:100000:1000\n"}, "/etc/subgid", "usermod --add-subuids"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "kernel.unprivileged_userns_clone", "sysctl -w"),
        ({"/proc/sys/user/max_user_namespaces": "0\n"}, "user.max_user_namespaces", "sysctl -w"),
        ({"denied": "/dev/net/tun"}, "/dev/net/tun", "chmod 666 /dev/net/tun"),
        ({"denied": "/run/user/1001"}, "/run/user/1001", "loginctl enable-linger someone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_engine_without_root_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], target: str, remedy: str
) -> None:
    files = ORDINARY | changed
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(hostcheck, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(os, "access", lambda path, mode: path != files.get("denied"))
    monkeypatch.setattr(pwd, "getpwuid", lambda user: type("Entry", (), {"pw_name": "someone"}))
    (row,) = hostcheck._rootless()
    assert not row["ok"]
    assert row["target"] == target
    assert remedy in row["fix"]
    files = dict(ORDINARY)
    (well,) = hostcheck._rootless()
    assert well["ok"]


def test_a_user_without_a_session_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It said "/run/user/1001: Permission denied" and no more."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("PYSTACK_ROOT", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    with pytest.raises(PystackError, match=r"none: it is not there.*loginctl enable-linger"):
        starting.require_runtime_folder()


def test_a_lab_names_all_that_it_lacks_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """It named `make setup`, which only a checkout has."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(hostcheck, "which", lambda name: None if name in ("nft", "sshd") else "/usr/bin/x")
    with pytest.raises(PystackError, match=r"\(nft, sshd\): .*install nftables openssh-server"):
        lab_up.require_programs(lab_up.PROGRAMS)
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    with pytest.raises(PystackError, match="needs root"):
        lab_up.require_programs(lab_up.PROGRAMS)


@pytest.mark.parametrize(
    ("contexts", "known", "said", "well"),
    [
        ('file = "f"\nprocess = "u:r:container_t:s0"\n', True, "containers get labels", True),
        (
            'process = "u:r:container_t:s0"\n',
            False,
            "its policy does not know u:r:container_t:s0, which /etc/selinux/default/",
            False,
        ),
        ("", True, "no types of containers are named", False),
    ],
)
def test_a_host_that_enforces_selinux_is_told_whether_its_policy_knows_containers(
    monkeypatch: pytest.MonkeyPatch, contexts: str, known: bool, said: str, well: bool
) -> None:
    files = {
        "/sys/fs/selinux/enforce": "1",
        "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=default\n",
        "/etc/selinux/default/contexts/lxc_contexts": contexts,
    }
    monkeypatch.setattr(hostcheck, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(hostcheck, "_policy_knows", lambda context: known)
    (found,) = [row for row in hostcheck.examine() if row["check"] == "selinux"]
    assert said in str(found["detail"])
    assert bool(found["fix"]) != well
