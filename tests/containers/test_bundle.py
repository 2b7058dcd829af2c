"""config.json: each key of a container, and the part of the document that it makes. Source: OCI Runtime Specification 1.0.2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.containers import bundle
from agent.containers.users import Identity
from agent.contract.container import Container, Device, Mount, Ulimit
from agent.errors import BadRequestError

SANDBOX = dict.fromkeys(("pid", "network", "ipc", "uts", "mount", "cgroup"), "")


def made(tmp_path: Path, mounts: list[tuple[Mount, Path]] | None = None, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The document for a container with these *fields*, those of `Parts` among them; and the notes."""
    own = {name: fields.pop(name) for name in list(fields) if name in bundle.Parts.__struct_fields__}
    container = Container(image="a", security_opt=fields.pop("security_opt", ("apparmor=unconfined",)), **fields)
    usual: dict[str, Any] = {
        "id": "c" * 64,
        "args": ["sh"],
        "environment": {},
        "working_dir": "",
        "identity": Identity(0, 0, (), "/root"),
        "rootfs": tmp_path,
        "hostname": "here",
        "cgroup_parent": "/pystack",
        "namespaces": SANDBOX,
        "mounts": mounts or [],
        "system_files": {},
        "cgroup2": True,
    }
    parts = bundle.Parts(container=container, **(usual | own))
    return bundle.build(parts), parts.notes


def at(document: dict[str, Any], path: str) -> Any:
    """What lies at `a.b.c`; None where nothing does."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None  # type: ignore[assignment]
    return document


CASES: dict[str, tuple[dict[str, Any], str, Any]] = {
    "a root that is read only": ({"read_only": True}, "root.readonly", True),
    "the host name": ({}, "hostname", "here"),
    "the folder that it starts in": ({"working_dir": "/srv"}, "process.cwd", "/srv"),
    "/ where the image names no folder": ({}, "process.cwd", "/"),
    "a terminal": ({"tty": True}, "process.terminal", True),
    "no rights to gain": ({"security_opt": ("no-new-privileges=true", "apparmor=unconfined")}, "process.noNewPrivileges", True),
    "rights to gain": ({}, "process.noNewPrivileges", False),
    "the SELinux label of its process": ({"process_label": "u:r:t:s0:c1,c2"}, "process.selinuxLabel", "u:r:t:s0:c1,c2"),
    "the SELinux label of its memory": ({"mount_label": "u:object_r:f:s0:c1,c2"}, "linux.mountLabel", "u:object_r:f:s0:c1,c2"),
    "no SELinux label where it has none": ({"mount_label": "u:object_r:f:s0"}, "process.selinuxLabel", None),
    "no SELinux label where there is no SELinux": ({}, "linux.mountLabel", None),
    "who is ended first": ({"oom_score_adj": 500}, "process.oomScoreAdj", 500),
    "CPUs are a quota of 100 ms": (
        {"cpus": 1.5},
        "linux.resources.cpu",
        {"period": 100_000, "quota": 150_000},
    ),
    "a quota is not below what the kernel takes": ({"cpus": 0.001}, "linux.resources.cpu.quota", 1000),
    "shares and sets of CPUs": (
        {"cpu_shares": 512, "cpuset": "0-1", "cpuset_mems": "0"},
        "linux.resources.cpu",
        {"shares": 512, "cpus": "0-1", "mems": "0"},
    ),
    "memory, and as much swap": ({"memory": 64 << 20}, "linux.resources.memory", {"limit": 64 << 20, "swap": 128 << 20}),
    "memory without swap": (
        {"memory": 64 << 20, "memory_swap": 64 << 20},
        "linux.resources.memory",
        {"limit": 64 << 20, "swap": 64 << 20},
    ),
    "memory that is reserved": ({"memory_reservation": 1 << 20}, "linux.resources.memory", {"reservation": 1 << 20}),
    "processes": ({"pids": 10}, "linux.resources.pids", {"limit": 10}),
    "no limits": ({}, "linux.resources.memory", None),
    "the control group": ({}, "linux.cgroupsPath", f"/pystack/{'c' * 64}"),
    "sysctls": ({"sysctls": {"net.core.somaxconn": "9"}}, "linux.sysctl", {"net.core.somaxconn": "9"}),
    "annotations": ({"annotations": (("a", "b"),)}, "annotations", {"a": "b"}),
    "all paths of a privileged one": ({"privileged": True}, "linux.maskedPaths", None),
    "system paths that are not hidden": (
        {"security_opt": ("systempaths=unconfined", "apparmor=unconfined")},
        "linux.readonlyPaths",
        None,
    ),
    "no filter of system calls": (
        {"security_opt": ("seccomp=unconfined", "apparmor=unconfined")},
        "linux.seccomp",
        None,
    ),
    "all devices of a privileged one": (
        {"privileged": True},
        "linux.resources.devices",
        [{"allow": True, "access": "rwm"}],
    ),
    "a user namespace": (
        {"ids": 200_000},
        "linux.uidMappings",
        [{"containerID": 0, "hostID": 200_000, "size": 65_536}],
    ),
}


@pytest.mark.parametrize(("fields", "path", "expected"), CASES.values(), ids=CASES)
def test_a_key_makes_its_part(fields: dict[str, Any], path: str, expected: Any, tmp_path: Path) -> None:
    document, notes = made(tmp_path, **fields)
    assert at(document, path) == expected
    assert notes == []


def test_the_environment_has_what_a_shell_needs_and_the_container_its_own(tmp_path: Path) -> None:
    document, _ = made(tmp_path, environment={"A": "b", "HOME": "/srv"}, tty=True)
    assert document["process"]["env"] == [f"PATH={bundle.DEFAULT_PATH}", "HOSTNAME=here", "A=b", "HOME=/srv", "TERM=xterm"]
    document, _ = made(tmp_path, identity=Identity(7, 8, (9,), "/home/u"))
    assert "HOME=/home/u" in document["process"]["env"]
    assert document["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [9]}


def test_namespaces_are_new_joined_or_the_hosts(tmp_path: Path) -> None:
    document, _ = made(tmp_path, namespaces={"pid": "", "ipc": "/proc/7/ns/ipc"})
    assert document["linux"]["namespaces"] == [{"type": "pid"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}]
    sys = next(m for m in document["mounts"] if m["destination"] == "/sys")
    assert sys["type"] == "bind", "the host's network: its /sys cannot be mounted anew"


@pytest.mark.parametrize(
    ("namespaces", "kind", "option"), [(SANDBOX, "tmpfs", "size=1024"), ({"network": ""}, "bind", "rbind")]
)
def test_shared_memory_is_its_own_or_the_hosts(namespaces: dict[str, str], kind: str, option: str, tmp_path: Path) -> None:
    document, _ = made(tmp_path, namespaces=namespaces, shm_size=1024)
    shm = next(m for m in document["mounts"] if m["destination"] == "/dev/shm")
    assert (shm["type"], option in shm["options"]) == (kind, True)


def test_mounts_lie_in_the_order_of_their_depth_and_above_the_usual_ones(tmp_path: Path) -> None:
    deep = (Mount(kind="bind", source="/a", target="/srv/a/b", read_only=True, recursive=False), Path("/a"))
    flat = (Mount(kind="tmpfs", target="/srv", size=4096, mode=0o700, options=("noexec",)), Path())
    document, _ = made(tmp_path, mounts=[deep, flat])
    first, second = document["mounts"][-2:]
    assert first == {
        "destination": "/srv",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "rw", "mode=700", "size=4096", "noexec"],
    }
    assert second == {"destination": "/srv/a/b", "type": "bind", "source": "/a", "options": ["bind", "ro", "rprivate"]}


@pytest.mark.parametrize(
    ("asked", "root"), [(("rprivate",), None), (("rslave", "rprivate"), "rslave"), (("slave", "rshared"), "shared")]
)
def test_the_root_receives_what_a_mount_is_to_receive(asked: tuple[Any, ...], root: str | None, tmp_path: Path) -> None:
    mounts = [(Mount(kind="bind", source="/a", target=f"/{n}", propagation=p), Path("/a")) for n, p in enumerate(asked)]
    document, _ = made(tmp_path, mounts=mounts)
    assert at(document, "linux.rootfsPropagation") == root


def test_system_files_lie_above_a_volume_where_it_has_the_place_for_them(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    hosts = tmp_path / "hosts"
    hosts.touch()
    read_only = [(Mount(kind="volume", source="v", target="/etc", read_only=True), etc)]
    document, _ = made(tmp_path, mounts=read_only, system_files={"/etc/hosts": hosts})
    assert [m["destination"] for m in document["mounts"]][-1] == "/etc", "nothing can be mounted on what is not there"
    (etc / "hosts").touch()
    document, _ = made(tmp_path, mounts=read_only, system_files={"/etc/hosts": hosts})
    assert document["mounts"][-1]["destination"] == "/etc/hosts"


def test_a_device_is_made_and_allowed(tmp_path: Path) -> None:
    device = Device(source="/dev/null", target="/dev/nil", permissions="r")
    document, _ = made(tmp_path, devices=(device,), device_rules=("c 10:* rw",))
    (node,) = document["linux"]["devices"]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/nil", "c", 1, 3)
    rules = document["linux"]["resources"]["devices"]
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"} in rules
    assert {"allow": True, "type": "c", "access": "rw", "major": 10} in rules
    assert rules[0] == {"allow": False, "access": "rwm"}


def test_limits_of_the_process(tmp_path: Path) -> None:
    document, _ = made(tmp_path, ulimits=(Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=-1)))
    assert document["process"]["rlimits"][0] == {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}
    assert document["process"]["rlimits"][1]["soft"] == 0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a limit that does not exist": ({"ulimits": (Ulimit(name="nope", soft=1, hard=1),)}, "ulimit 'nope' does not exist"),
    "a device that is not there": (
        {"devices": (Device(source="/dev/nope", target="/x"),)},
        'custom device "/dev/nope": no such file',
    ),
    "a device that is none": ({"devices": (Device(source="/etc/passwd", target="/x"),)}, "/etc/passwd is not a device node"),
    "a rule that cannot be read": ({"device_rules": ("c 1 rwm",)}, "invalid device cgroup rule format: 'c 1 rwm'"),
}


@pytest.mark.parametrize(("fields", "error"), WRONG.values(), ids=WRONG)
def test_what_no_kernel_can_grant(fields: dict[str, Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=error):
        made(tmp_path, **fields)


NOTED: dict[str, tuple[dict[str, Any], str]] = {
    "swappiness": ({"swappiness": 10}, "mem_swappiness has no counterpart in cgroup version 2"),
    "the OOM killer": ({"oom_kill_disable": True}, "oom_kill_disable has no counterpart"),
    "real time": ({"cpu_rt_runtime": 10}, "need a kernel with CONFIG_RT_GROUP_SCHED"),
    "no control group": ({"memory": 1 << 20, "cgroup_parent": ""}, "limits (memory) are not kept"),
}


@pytest.mark.parametrize(("fields", "note"), NOTED.values(), ids=NOTED)
def test_what_this_host_cannot_do_is_noted(fields: dict[str, Any], note: str, tmp_path: Path) -> None:
    _, notes = made(tmp_path, **fields)
    assert note in notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="who has all rights is root")
def test_a_privileged_one_has_the_rights_of_its_agent(tmp_path: Path) -> None:
    plain, _ = made(tmp_path)
    all_of_them, _ = made(tmp_path, privileged=True)
    few, many = (d["process"]["capabilities"]["bounding"] for d in (plain, all_of_them))
    assert set(few) < set(many)
