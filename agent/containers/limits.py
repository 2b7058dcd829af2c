"""The limits of a container as texts in the files of its control groups, for both versions.

The runtime writes most of them when it makes a container. What runc of Debian does not know (bursts), what it leaves out of an
update (limits of disks, huge pages), and every change of a container that runs, is written here.
Source: kernel, Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; Documentation/block/bfq-iosched.rst;
Documentation/scheduler/sched-bwc.rst (bursts), sched-rt-group.rst.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent import cgroups
from agent.containers.block_devices import BlockDevice
from agent.contract.container import Container
from agent.contract.sizes import hugepages
from agent.errors import AgentError

File = tuple[str, str, str]
"""A limit: the controller, its file, and, where that has a line for each device, whose line: `8:0`, `8:0 rbps`."""
INHERITED = "inherited"
"""The value of the group above: an empty one is refused by version 1, and by Linux 6.1 for a group with processes.
Source: kernel, validate_change() of the cpuset controller."""
PERIOD_US = 100_000
RT_PERIOD_US = 1_000_000
SHARES = 1024
WEIGHT = 100
"""What a group has that asks for nothing."""
THROTTLES = {
    "read_bps": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blkio.throttle.write_iops_device", "wiops"),
}
"""The file in version 1, and the word in `io.max` of version 2."""
PASSES = 4
"""One limit may have to go before another can: swap is not below memory, a burst not above its quota."""


def values(container: Container, devices: Mapping[str, BlockDevice], *, v2: bool) -> dict[File, str]:
    """Every limit of *container*; what it does not ask for has the value of a group that asks for nothing. *devices* has the
    disk of each path of its limits of disk I/O."""
    c = container
    quota = c.cpu_quota or (max(1000, int(c.cpus * PERIOD_US)) if c.cpus else 0)
    found = (_of_v2 if v2 else _of_v1)(c, quota, c.cpu_period or PERIOD_US)
    found["pids", "pids.max", ""] = str(c.pids) if c.pids else "max"
    for size, limit in hugepages(c.hugepages):
        name = f"hugetlb.{size}.{'max' if v2 else 'limit_in_bytes'}"
        found["hugetlb", name, ""] = limit
    for one in c.blkio:
        disk = devices[one.path]
        if one.what == "weight":
            file: File = ("io", "io.bfq.weight", str(disk)) if v2 else ("blkio", "blkio.bfq.weight_device", str(disk))
            found[file] = f"{disk} {one.rate}"
        elif v2:
            word = THROTTLES[one.what][1]
            found["io", "io.max", f"{disk} {word}"] = f"{disk} {word}={one.rate}"
        else:
            found["blkio", THROTTLES[one.what][0], str(disk)] = f"{disk} {one.rate}"
    return found


def _of_v1(c: Container, quota: int, period: int) -> dict[File, str]:
    """The limits that do not name a device, in version 1."""
    swap = c.memory_swap or c.memory * 2
    return {
        ("cpu", "cpu.shares", ""): str(c.cpu_shares or SHARES),
        ("cpu", "cpu.cfs_period_us", ""): str(period),
        ("cpu", "cpu.cfs_quota_us", ""): str(quota or -1),
        ("cpu", "cpu.cfs_burst_us", ""): str(c.cpu_burst),
        ("cpu", "cpu.rt_period_us", ""): str(c.cpu_rt_period or RT_PERIOD_US),
        ("cpu", "cpu.rt_runtime_us", ""): str(c.cpu_rt_runtime),
        ("cpuset", "cpuset.cpus", ""): c.cpuset or INHERITED,
        ("cpuset", "cpuset.mems", ""): c.cpuset_mems or INHERITED,
        ("memory", "memory.limit_in_bytes", ""): str(c.memory or -1),
        ("memory", "memory.memsw.limit_in_bytes", ""): str(swap if c.memory else -1),
        ("memory", "memory.soft_limit_in_bytes", ""): str(c.memory_reservation or -1),
        ("memory", "memory.swappiness", ""): INHERITED if c.swappiness is None else str(c.swappiness),
        ("memory", "memory.oom_control", ""): str(int(c.oom_kill_disable)),
        ("blkio", "blkio.bfq.weight", ""): str(c.blkio_weight or WEIGHT),
    }


def _of_v2(c: Container, quota: int, period: int) -> dict[File, str]:
    """The limits that do not name a device, in version 2. Shares become a weight as in OCI runtimes."""
    weight = 1 + (c.cpu_shares - 2) * 9999 // 262142 if c.cpu_shares else WEIGHT
    # version 2 counts swap by itself, Docker's option together with memory
    swap = c.memory_swap - c.memory if c.memory_swap > 0 else -1 if c.memory_swap else c.memory
    return {
        ("cpu", "cpu.weight", ""): str(weight),
        ("cpu", "cpu.max", ""): f"{quota or 'max'} {period}",
        ("cpu", "cpu.max.burst", ""): str(c.cpu_burst),
        ("cpuset", "cpuset.cpus", ""): c.cpuset or INHERITED,
        ("cpuset", "cpuset.mems", ""): c.cpuset_mems or INHERITED,
        ("memory", "memory.max", ""): str(c.memory or "max"),
        ("memory", "memory.swap.max", ""): str(swap) if c.memory and swap >= 0 else "max",
        ("memory", "memory.low", ""): str(c.memory_reservation),
        ("io", "io.bfq.weight", ""): f"default {c.blkio_weight or WEIGHT}",
    }


def changes(old: Mapping[File, str], new: Mapping[File, str]) -> dict[File, str]:
    """What must be written so that a group with the values *old* has *new*; what *new* has no word of becomes free."""
    return {file: text for file, text in new.items() if old.get(file) != text} | {
        file: _free(file) for file in old if file not in new
    }


def _free(file: File) -> str:
    """What takes the limit of a device, or of huge pages, away."""
    controller, name, line = file
    if controller == "hugetlb":
        return "max" if name.endswith("max") else "-1"
    if name == "io.max":
        return f"{line}=max"
    return f"{line} default" if "weight" in name else f"{line} 0"


def is_weight_of_disk(file: File) -> bool:
    """Whether it is the weight for one disk, which the kernel takes where that has the scheduler BFQ alone."""
    return "weight" in file[1] and bool(file[2])


def left_to_us(container: Container, devices: Mapping[str, BlockDevice], *, v2: bool) -> dict[File, str]:
    """What of the limits of *container* its runtime has not written when it made the group."""
    found = changes(values(Container(image=""), {}, v2=v2), values(container, devices, v2=v2))
    ours = ("burst", "cpu.rt_")
    return {f: text for f, text in found.items() if f[0] in ("blkio", "io", "hugetlb") or any(word in f[1] for word in ours)}


def write(group: str, texts: Mapping[File, str]) -> Iterator[str]:
    """Write *texts* to the control group *group*. Yields what this kernel does not have. Raises AgentError for what it refuses.

    The order of limits that depend on each other is found by trying again."""
    left, refused = dict(texts), dict[File, str]()
    nothing = values(Container(image=""), {}, v2=cgroups.unified())
    _refuse_below_use(group, texts.get(("memory", "memory.max", ""), "max"))
    for _ in range(PASSES):
        for file, text in list(left.items()):
            path = cgroups.directory(file[0], group) / file[1]
            if file[1] == "cpu.rt_runtime_us" and text != "0" and path.exists():
                _grant(path, int(text))
            try:
                path.write_text((_above(path) if text == INHERITED else text) + "\n")
            except FileNotFoundError:
                if nothing.get(file) != text != _free(file) and not file[1].endswith(("memsw.limit_in_bytes", "swap.max")):
                    yield f"{file[1]} is not there: the kernel of this node, or the groups that it was given, do not have it"
            except OSError as error:
                refused[file] = f"{file[1]}: {text}: {os.strerror(error.errno or 0)}"
                continue
            del left[file]
        if not left:
            return
    raise AgentError(f"the kernel refuses {'; '.join(refused[file] for file in left)}")


def _refuse_below_use(group: str, limit: str) -> None:
    """Raises AgentError for a *limit* below what cannot be reclaimed: version 1 refuses it, version 2 would kill processes."""
    if limit == "max":
        return
    try:
        lines = (cgroups.directory("memory", group) / "memory.stat").read_text().splitlines()
    except OSError:
        return
    table = dict(line.split(" ", 1) for line in lines)
    used = int(table.get("anon", 0)) + int(table.get("shmem", 0))
    if used > int(limit):
        raise AgentError(f"it uses {used >> 20} MiB of memory: a limit of {int(limit) >> 20} MiB would end its processes")


def _grant(file: Path, runtime: int) -> None:
    """Give the groups above the one of *file*, which have no real time of their own, what it and its siblings need of it. The
    kernel refuses a child what its parent has not. Source: sched-rt-group.rst, 2.3."""
    needs = {file.parent: runtime / int((file.parent / "cpu.rt_period_us").read_text())}
    top, group = cgroups.directory("cpu", "/"), file.parent
    while group != top:
        child, group = group, group.parent
        siblings = (d for d in group.iterdir() if d.is_dir() and d != child)
        needs[group] = needs[child] + sum(_real_time(d) for d in siblings)
    for above in list(needs)[:0:-1]:
        if _real_time(above) < needs[above]:
            period = int((above / "cpu.rt_period_us").read_text())
            with contextlib.suppress(OSError):  # the write of the container's own says what is wrong
                (above / file.name).write_text(str(math.ceil(needs[above] * period)))


def _real_time(group: Path) -> float:
    """The part of its period that *group* may run in real time; 0 where it went meanwhile."""
    try:
        return int((group / "cpu.rt_runtime_us").read_text()) / int((group / "cpu.rt_period_us").read_text())
    except (OSError, ValueError):
        return 0.0


def _above(path: Path) -> str:
    above = path.parent.parent
    effective = above / f"{path.name}.effective"  # in version 2, where the group above may have none of its own
    return (effective if effective.exists() else above / path.name).read_text().strip()
