"""Limits of CPU, memory, disk I/O and huge pages: what the kernel was given, at the start and in place, on both versions."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import cgroups
from tests.conftest import Pystack, Stack

pytestmark = pytest.mark.kernel
V2 = cgroups.unified()
BASE = "{image: busybox, command: sleep 1000, stop_grace_period: 0s"
FILES: dict[str, tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    "cpus": (("cpu", "cpu.cfs_quota_us", "50000"), ("cpu", "cpu.max", "50000 100000")),
    "cpu_shares": (("cpu", "cpu.shares", "512"), ("cpu", "cpu.weight", "20")),
    "cpuset": (("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.cpus", "0")),
    "x-cpu-burst": (("cpu", "cpu.cfs_burst_us", "20000"), ("cpu", "cpu.max.burst", "20000")),
    "mem_limit": (("memory", "memory.limit_in_bytes", str(64 << 20)), ("memory", "memory.max", str(64 << 20))),
    "memswap_limit": (("memory", "memory.memsw.limit_in_bytes", str(96 << 20)), ("memory", "memory.swap.max", str(32 << 20))),
    "mem_reservation": (("memory", "memory.soft_limit_in_bytes", str(32 << 20)), ("memory", "memory.low", str(32 << 20))),
    "pids_limit": (("pids", "pids.max", "77"), ("pids", "pids.max", "77")),
}
"""Of each key: controller, file and text in version 1, and in version 2."""
KEYS = (
    "cpus: 0.5, cpu_shares: 512, cpuset: '0', x-cpu-burst: 20ms, mem_limit: 64m, memswap_limit: 96m, mem_reservation: 32m, "
    "pids_limit: 77"
)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A block device with an ext4 file system."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def read(lab: Pystack, container: str, controller: str, file: str) -> str:
    """What *file* of the control group of *container* says; "" where it is not there."""
    pid = json.loads(lab("container", "inspect", container).stdout)[0]["State"]["Pid"]
    for line in lab.on("n1", "cat", f"/proc/{pid}/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "" if V2 else controller in controllers.split(","):
            path = cgroups.directory(controller, group) / file
            return lab.on("n1", "sh", "-c", f"test ! -e {path} || cat {path}").strip()
    raise AssertionError(f"no group of {controller}")


def test_each_key_is_kept_and_changed_in_place_by_up_and_taken_away(lab: Pystack, stack: Stack) -> None:
    stack.up(f"services: {{a: {BASE}}}}}")
    task, ident = f"{stack.name}-a-1", stack.ps()["a-1"]["id"]
    free = {key: read(lab, task, *both[V2][:2]) for key, both in FILES.items()}
    if V2:  # none of its own: a group with processes does not get back to that
        free["cpuset"] = read(lab, task, "cpuset", "cpuset.cpus.effective")
    stack.write(f"services: {{a: {BASE}, {KEYS}}}}}")
    assert "its limits change (cpus, cpu_shares, cpuset, cpu_burst, memory" in stack.run("plan").stdout
    stack.up()
    for key, both in FILES.items():
        if key != "memswap_limit" or read(lab, task, *both[V2][:2]):  # kernels may count no swap
            assert read(lab, task, *both[V2][:2]) == both[V2][2], key
    assert stack.run("plan", "--exit-code").returncode == 0
    stack.up(f"services: {{a: {BASE}}}}}")
    assert {key: read(lab, task, *both[V2][:2]) for key, both in FILES.items()} == free
    assert stack.ps()["a-1"]["id"] == ident
    assert stack.ps()["a-1"]["restarts"] == 0
    stack.run("down")
    stack.up(f"services: {{a: {BASE}, {KEYS}}}}}")  # and by the first start
    for key in ("cpus", "x-cpu-burst", "mem_limit", "pids_limit"):
        assert read(lab, task, *FILES[key][V2][:2]) == FILES[key][V2][2], key


def test_a_limit_below_what_is_used_makes_the_task_new_and_not_dead(lab: Pystack, stack: Stack) -> None:
    hold = "command: sh -c 'head -c 60000000 /dev/zero > /dev/shm/held; sleep 1000', shm_size: 100m, stop_grace_period: 0s"
    stack.up(f"services: {{a: {{image: busybox, {hold}}}}}")
    stack.exec("a", "sh", "-c", "while ! [ $(wc -c < /dev/shm/held) = 60000000 ]; do sleep 0.1; done")
    done = lab("container", "update", "--memory", "20m", f"{stack.name}-a-1", check=False)
    assert "is a task of stack" in done.stderr
    lab("container", "run", "-d", "--name", "holder", "--shm-size", "100m", "busybox", "sleep", "1000")
    try:
        lab("container", "exec", "holder", "sh", "-c", "head -c 60000000 /dev/zero > /dev/shm/held")
        done = lab("container", "update", "--memory", "20m", "--memory-swap", "20m", "holder", check=False)
        assert done.returncode == 1
        assert ("would end its processes" if V2 else "Device or resource busy") in done.stderr
        assert lab("container", "exec", "holder", "echo", "lives").stdout == "lives\n"
    finally:
        lab("container", "rm", "-f", "holder")


def throttles(lab: Pystack, container: str, device: str) -> dict[str, int]:
    """The limits of *device* in the group of *container*: word of io.max → a second."""
    status = Path(device).stat()
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if V2:
        lines = [line.split() for line in read(lab, container, "io", "io.max").splitlines()]
        words = next((line[1:] for line in lines if line[0] == number), [])
        return {key: int(value) for key, _, value in (w.partition("=") for w in words) if value != "max"}
    found = {}
    for word, file in (("rbps", "read_bps"), ("wbps", "write_bps"), ("riops", "read_iops"), ("wiops", "write_iops")):
        for line in read(lab, container, "blkio", f"blkio.throttle.{file}_device").splitlines():
            if line.split()[0] == number:
                found[word] = int(line.split()[1])
    return found


def test_a_disk_is_limited_by_its_device_by_a_volume_and_by_a_path(lab: Pystack, stack: Stack, loop: str) -> None:
    file = (
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "    volumes: ['data:/data']\n    blkio_config:\n{}"
        f"volumes: {{{{data: {{{{driver_opts: {{{{type: ext4, device: {loop}}}}}}}}}}}}}\n"
    )
    limits = (
        f"      device_read_bps: [{{path: {loop}, rate: 4mb}}]\n"
        "      device_write_bps: [{path: data, rate: 2mb}]\n"
        "      device_read_iops: [{path: /data, rate: 500}]\n"
        "      device_write_iops: [{path: /data/below, rate: 300}]\n"
    )
    stack.up(file.format(limits))
    task = f"{stack.name}-a-1"
    ident = stack.ps()["a-1"]["id"]
    assert throttles(lab, task, loop) == {"rbps": 4 << 20, "wbps": 2 << 20, "riops": 500, "wiops": 300}
    stack.up(file.format("      device_write_bps: [{path: data, rate: 3mb}]\n"))
    assert throttles(lab, task, loop) == {"wbps": 3 << 20}
    assert stack.ps()["a-1"]["id"] == ident
    stack.run("restart", "a")
    assert throttles(lab, task, loop) == {"wbps": 3 << 20}


WRONG = {
    "a volume that it does not mount": (
        "datq",
        ":5:39: services.a.blkio_config.device_read_bps[0].path: 'datq' is neither",
    ),
    "a path of nothing": ("/nowhere", "/nowhere is neither a block device of the node (/dev/…) nor below a mount"),
    "memory": ("/tmp", "/tmp is in memory, not on a disk"),
    "a device that is none": ("/dev/null", "/dev/null is not a block device"),
}


@pytest.mark.parametrize(("path", "error"), WRONG.values(), ids=WRONG)
def test_what_is_on_no_disk_is_refused_with_its_reason(stack: Stack, path: str, error: str) -> None:
    done = stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n"
        f"    blkio_config: {{device_read_bps: [{{path: {path}, rate: 4mb}}]}}\n    tmpfs: [/tmp]\n",
        check=False,
    )
    assert done.returncode == 1
    assert error in done.stderr


def test_weights_reach_a_disk_with_bfq_and_are_said_to_have_no_effect_elsewhere(lab: Pystack, loop: str) -> None:
    scheduler = Path(f"/sys/block/{Path(loop).name}/queue/scheduler")
    options = ("--blkio-weight", "300", "--blkio-weight-device", f"{loop}:200")
    lab("container", "run", "-d", "--name", "weighed", "busybox", "sleep", "1000")
    try:
        if "bfq" not in scheduler.read_text():
            pytest.skip("this kernel has no BFQ")
        scheduler.write_text("none")
        done = lab("container", "update", *options, "weighed", check=False)
        assert "the scheduler of its disk is not BFQ" in done.stderr
        scheduler.write_text("bfq")
        done = lab("container", "update", *options, "weighed")
        assert done.stderr == ""
        weights = read(lab, "weighed", "blkio", "io.bfq.weight" if V2 else "blkio.bfq.weight")
        devices = weights if V2 else read(lab, "weighed", "blkio", "blkio.bfq.weight_device")
        assert "300" in weights.split()
        status = Path(loop).stat()
        assert f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)} 200" in devices
    finally:
        scheduler.write_text("none")
        lab("container", "rm", "-f", "weighed")


def test_huge_pages_are_limited_where_the_kernel_can_and_said_to_be_free_elsewhere(lab: Pystack, stack: Stack) -> None:
    stack.up(f"services: {{a: {BASE}, x-hugepages: {{2MB: 4m}}}}}}")
    task = f"{stack.name}-a-1"
    name = "hugetlb.2MB.max" if V2 else "hugetlb.2MB.limit_in_bytes"
    notes = json.loads(lab("container", "inspect", task).stdout)[0]["Notes"] or []
    if (cgroups.ROOT / "hugetlb").is_dir() or (V2 and read(lab, task, "hugetlb", name)):
        assert read(lab, task, "hugetlb", name) == str(4 << 20)
    else:
        assert any("hugetlb" in note for note in notes)


def test_real_time_is_granted_down_to_the_container(lab: Pystack) -> None:
    if V2 or not (cgroups.ROOT / "cpu" / "cpu.rt_runtime_us").exists():
        pytest.skip("this kernel has no real-time groups")
    lab("container", "run", "-d", "--name", "real", "busybox", "sleep", "1000")
    try:
        done = lab("container", "update", "--cpu-rt-runtime", "20000", "real", check=False)
        assert "the kernel refuses cpu.rt_runtime_us" in done.stderr  # the lab has no real time to give
        for name in ("", lab.lab, f"{lab.lab}/n1"):
            (cgroups.ROOT / "cpu" / "pystack-lab" / name / "cpu.rt_runtime_us").write_text("50000")
        lab("container", "update", "--cpu-rt-runtime", "20000", "real")
        assert read(lab, "real", "cpu", "cpu.rt_runtime_us") == "20000"
    finally:
        lab("container", "rm", "-f", "real")


def test_who_writes_the_log_of_a_container_makes_way_for_others(lab: Pystack) -> None:
    """It is in no container's control group: a flood of lines by one with a small part of a CPU would take a whole one."""
    lab("container", "run", "-d", "--name", "talker", "busybox", "sleep", "1000")
    try:
        pid = lab.json("container", "inspect", "talker")[0]["State"]["Pid"]
        fields = lab.on("n1", "cat", f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
        monitor = lab.on("n1", "cat", f"/proc/{fields[1]}/stat").rsplit(")", 1)
        assert "conmon" in monitor[0]
        assert (monitor[1].split()[16], fields[16]) == ("10", "0")
    finally:
        lab("container", "rm", "-f", "talker")
