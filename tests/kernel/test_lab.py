"""A lab leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.conftest import Pystack, cluster_of
from tests.images import archive, busybox_rootfs

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="labs need root")]


def traces(name: str) -> dict[str, object]:
    """What of the lab, and of the network, can be seen from the host."""
    cgroups = [p for p in Path("/sys/fs/cgroup").glob("*/pystack-lab/*") if p.name == name]
    processes = [
        p.name
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and (p / "cmdline").exists() and f"/{name}/".encode() in _read(p / "cmdline")
    ]
    return {
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line],
        "cgroups": cgroups,
        "processes": processes,
        "files": Path(f"/var/lib/pystack-lab/{name}").exists(),
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_down_leaves_nothing(tmp_path: Path) -> None:
    name = f"t{uuid.uuid4().hex[:6]}"
    before = traces(name)
    pystack = Pystack(name)
    pystack("lab", "up", "--name", name)
    try:
        root = f"/var/lib/pystack-lab/{name}/n1"
        pystack.environment["PYSTACK_HOST"] = f"unix://{root}/run/pystack.sock"
        image = archive(tmp_path / "b.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
        pystack("image", "load", "-i", str(image))
        pystack("container", "run", "-d", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/var/www")
        port = pystack("lab", "forward", "--name", name, "n1:8080").stdout.strip()
        page = subprocess.run(["busybox", "wget", "-qO-", f"http://{port}/"], capture_output=True, text=True, check=True)
        assert page.stdout == "it works\n"
        assert traces(name)["links"] == before["links"]
        pystack("container", "run", "-d", "--name", "asleep", "busybox", "sleep", "1000")
        pystack("container", "pause", "asleep")  # cgroup v1 keeps SIGKILL from a frozen process
    finally:
        pystack("lab", "down", "--name", name)
    assert traces(name) == before


def test_machines_have_disks_of_their_own_and_boot_at_once() -> None:
    """With several nodes, whose agents are reached over SSH: what they need for it is on their disks."""
    with cluster_of(2, disk="128m") as pystack:
        rows = pystack.json("node", "ls", "--format", "json")
        assert [row["state"] for row in rows] == ["ready", "ready"]
        for node in ("n1", "n2"):
            there = os.statvfs(f"/var/lib/pystack-lab/{pystack.lab}/{node}")
            assert there.f_blocks * there.f_frsize < 128 << 20
        for _ in range(3):
            pystack("lab", "fault", "--name", pystack.lab, "crash", "n2")
            pystack("lab", "fault", "--name", pystack.lab, "boot", "n2")
            assert "10.99.0.2" in pystack.on("n2", "ip", "-4", "address", "show", "eth0")
