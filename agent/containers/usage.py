"""The resource usage of a container, from its control groups and network namespace; without a group from its processes.

Source: kernel Documentation/admin-guide/cgroup-v1, cgroup-v2.rst; proc(5); Docker Engine API v1.48, ContainerStats.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agent import cgroups

BYTES = {"rbytes": "read", "wbytes": "write"}, "blkio.throttle.io_service_bytes"
NUMBERS = {"rios": "read", "wios": "write"}, "blkio.throttle.io_serviced"
"""Names of counters in cgroup version 2, and the file that has them in version 1."""
NO_CPU = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


OTHER_BLOCKS = (
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
"""Docker's further statistics of block I/O, which only a scheduler of version 1 counts."""
NO_BLOCKS = dict.fromkeys(("io_service_bytes_recursive", "io_serviced_recursive", *OTHER_BLOCKS))


def read(group: str, pid: int) -> dict[str, Any]:
    """Docker's statistics: CPU in nanoseconds, memory in bytes, pids, block I/O in bytes, network by interface."""
    cpu, memory, pids = _cpu(group), _memory(group), _number(cgroups.directory("pids", group) / "pids.current")
    if not has_group(group):
        living = [p for n in processes(group, pid) if (p := _process(n))]
        cpu, memory["usage"], pids = sum(c for c, _ in living), sum(m for _, m in living), len(living)
    return {
        "cpu_stats": {
            "cpu_usage": {"total_usage": cpu, **_modes(group)},
            "system_cpu_usage": _host_cpu(),
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": _throttled(group),
        },
        "memory_stats": memory,
        "pids_stats": {"current": pids} | ({"limit": most} if (most := _pids_limit(group)) else {}),
        "blkio_stats": {
            "io_service_bytes_recursive": _blocks(group, BYTES),
            "io_serviced_recursive": _blocks(group, NUMBERS),
            **dict.fromkeys(OTHER_BLOCKS, None if cgroups.unified() else []),
        },
        "pressure": _pressure(group),
        "networks": _networks(pid),
    }


def keeps_pressure() -> bool:
    """Whether this host says how long each container waited: control groups of version 2 do, where the kernel has PSI on."""
    return cgroups.unified() and Path("/proc/pressure/cpu").exists()


def _pressure(group: str) -> dict[str, dict[str, dict[str, float]]] | None:
    """How long processes of *group* waited for cpu, memory and io: of `some` of them and `full`, all of them, the percentage of
    the last 10, 60 and 300 s and the total in microseconds. None where the kernel does not count it. Source: psi.rst."""
    found = {}
    for kind in ("cpu", "memory", "io"):
        try:
            lines = (cgroups.directory(kind, group) / f"{kind}.pressure").read_text().splitlines() if cgroups.unified() else []
        except OSError:  # not in this kernel, or switched off: it is read then, and refused
            return None
        pairs = ((line.split()[0], line.split()[1:]) for line in lines)
        found[kind] = {who: {k: float(v) for k, _, v in (w.partition("=") for w in words)} for who, words in pairs}
    return found if any(found.values()) else None


def _pids_limit(group: str) -> int:
    return _number(cgroups.directory("pids", group) / "pids.max")


def _modes(group: str) -> dict[str, Any]:
    """CPU time in the kernel and outside of it, and, where the kernel counts that, on each CPU."""
    if cgroups.unified():
        table = _table(cgroups.directory("cpu", group) / "cpu.stat")
        kernel, user = (table.get(key, 0) * 1000 for key in ("system_usec", "user_usec"))
        return {"usage_in_kernelmode": kernel, "usage_in_usermode": user}
    directory = cgroups.directory("cpuacct", group)
    table, tick = _table(directory / "cpuacct.stat"), 10**9 // os.sysconf("SC_CLK_TCK")
    try:
        each = [int(word) for word in (directory / "cpuacct.usage_percpu").read_text().split()]
    except (OSError, ValueError):
        each = []
    return {
        "usage_in_kernelmode": table.get("system", 0) * tick,
        "usage_in_usermode": table.get("user", 0) * tick,
        **({"percpu_usage": each} if each else {}),
    }


def _throttled(group: str) -> dict[str, int]:
    table = _table(cgroups.directory("cpu", group) / "cpu.stat")
    time = table.get("throttled_usec", 0) * 1000 if cgroups.unified() else table.get("throttled_time", 0)
    return {"periods": table.get("nr_periods", 0), "throttled_periods": table.get("nr_throttled", 0), "throttled_time": time}


def has_group(group: str) -> bool:
    """Whether the control group *group* exists."""
    return cgroups.directory("pids", group).is_dir()


def processes(group: str, pid: int) -> set[int]:
    """PIDs (of the host) of a container with the first process *pid*, groups below its own included; without a group, those in
    that one's PID namespace."""
    if not has_group(group):
        return {int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and _space(int(p.name)) == _space(pid)}
    found: set[int] = set()
    for path, _, _ in os.walk(cgroups.directory("pids", group)):
        try:
            found |= {int(word) for word in (Path(path) / "cgroup.procs").read_text().split()}
        except OSError:
            continue
    return found


def _space(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _process(pid: int) -> tuple[int, int] | None:
    """Nanoseconds of CPU time and resident bytes of a process; None if it is gone. Source: proc(5), stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def _table(path: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].isdecimal()}
    except OSError:
        return {}


def _cpu(group: str) -> int:
    if cgroups.unified():
        return _table(cgroups.directory("cpu", group) / "cpu.stat").get("usage_usec", 0) * 1000
    return _number(cgroups.directory("cpuacct", group) / "cpuacct.usage")


def _memory(group: str) -> dict[str, Any]:
    directory = cgroups.directory("memory", group)
    v2 = cgroups.unified()
    limit = _number(directory / ("memory.max" if v2 else "memory.limit_in_bytes"))
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = {} if v2 else {"max_usage": _number(directory / "memory.max_usage_in_bytes")}
    return {
        "usage": _number(directory / ("memory.current" if v2 else "memory.usage_in_bytes")),
        **most,
        "limit": min(limit, host) or host,
        "stats": _table(directory / "memory.stat"),
    }


def _host_cpu() -> int:
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(word) for word in words) * 10**9 // os.sysconf("SC_CLK_TCK")


def _blocks(group: str, which: tuple[dict[str, str], str]) -> list[dict[str, Any]]:
    out = []
    if cgroups.unified():
        path, names = cgroups.directory("io", group) / "io.stat", which[0]
    else:
        path = cgroups.directory("blkio", group) / which[1]
        names = {"Read": "read", "Write": "write"}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        device, *words = line.split()
        major, colon, minor = device.partition(":")
        if not colon:
            continue
        pairs = [w.split("=") for w in words] if "=" in line else [words]
        out += [{"major": int(major), "minor": int(minor), "op": names[k], "value": int(v)} for k, v in pairs if k in names]
    return out


def _networks(pid: int) -> dict[str, dict[str, int]]:
    out = {}
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    for line in lines:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            out[name.strip()] = {
                "rx_bytes": n[0],
                "rx_packets": n[1],
                "rx_errors": n[2],
                "rx_dropped": n[3],
                "tx_bytes": n[8],
                "tx_packets": n[9],
                "tx_errors": n[10],
                "tx_dropped": n[11],
            }
    return out
