"""What pystack costs while nothing happens: memory and CPU of the server, the agent and the data path with 50 containers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.environment import Environment
from bench.rows import Row, row, size

COUNT, CROWD, SECONDS, SETTLE_S = size(50, 2), size(500, 3), size(15, 1), size(15, 0)
"""Seconds before it counts: what one large request needed is given back after ten (`agent/memory.py`)."""
GOAL_MB, CROWD_GOAL_MB, GOAL_PERCENT = 45.0, 90.0, 0.1
SERVER, DATA_PATH = "orchestrator.embedded", "netplugins.dataplane"


def ours(environment: Environment, *parts: str) -> list[int]:
    """PIDs of the processes of *parts* on this node, found by their environment. Raises RuntimeError unless there is one
    of each: a figure without it would be none."""
    found: dict[str, list[int]] = {part: [] for part in parts}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                mine = f"PYSTACK_ROOT={environment.root}".encode() in (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            for part in parts:
                if mine and part.encode() in words:
                    found[part].append(int(path.name))
    if any(len(pids) != 1 for pids in found.values()):
        raise RuntimeError(f"one process of each part was looked for, and found {found}")
    return [pid for pids in found.values() for pid in pids]


def _memory(pid: int) -> float:
    """Proportional set size in MB: pages shared with others count for their part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def cpu_of(pid: int) -> float:
    """Seconds of processor time that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(environment: Environment) -> dict[str, Row]:
    """The goals are the baselines here: there is no rival process to compare."""
    memory, used = _idle(environment, COUNT)
    crowded, _ = _idle(environment, CROWD)
    return {
        "idle50_memory": row(memory, GOAL_MB, "MB"),
        "idle50_cpu": row(used, GOAL_PERCENT, "%"),
        "idle500_memory": row(crowded, CROWD_GOAL_MB, "MB"),
    }


def _idle(environment: Environment, count: int) -> tuple[float, float]:
    """Memory in MB and processor time as a percentage of a core, with *count* containers that do nothing."""
    folder = environment.root / f"idle{count}"
    folder.mkdir()
    file = folder / "docker-compose.yml"
    lines = [f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}" for n in range(count)]
    file.write_text("services:\n" + "\n".join(lines) + "\n")
    environment.pystack("-f", str(file), "up", "--progress", "quiet")
    try:
        time.sleep(SETTLE_S)
        pids = ours(environment, SERVER, DATA_PATH)
        before = sum(cpu_of(pid) for pid in pids)
        time.sleep(SECONDS)
        used = (sum(cpu_of(pid) for pid in pids) - before) / SECONDS * 100
        return sum(_memory(pid) for pid in pids), used
    finally:
        environment.pystack("-f", str(file), "down", "--progress", "quiet")


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["idle", *sys.argv[1:]]))
