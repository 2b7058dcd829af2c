"""What pystack costs while nothing happens: memory and CPU of the server, the agent and the data path with 50 containers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.environment import Environment
from bench.rows import Row, row, size

COUNT, SECONDS, SETTLE_S = size(50, 2), size(15, 1), size(3, 0)


def ours(environment: Environment) -> list[int]:
    """PIDs of this bench's server and data path, found by their environment."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes()
                mine = f"PYSTACK_ROOT={environment.root}".encode() in (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mine and (b"orchestrator.server" in words or b"netplugins.dataplane" in words):
                found.append(int(path.name))
    return found


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
    """Goals of 60 MB and 0.5 % of a core are the baselines here: there is no rival process to compare."""
    folder = environment.root / "idle"
    folder.mkdir()
    file = folder / "docker-compose.yml"
    lines = [f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}" for n in range(COUNT)]
    file.write_text("services:\n" + "\n".join(lines) + "\n")
    environment.pystack("-f", str(file), "up", "--progress", "quiet")
    try:
        time.sleep(SETTLE_S)
        pids = ours(environment)
        before = sum(cpu_of(pid) for pid in pids)
        time.sleep(SECONDS)
        used = (sum(cpu_of(pid) for pid in pids) - before) / SECONDS * 100
        return {
            "idle50_memory": row(sum(_memory(pid) for pid in pids), 60.0, "MB"),
            "idle50_cpu": row(used, 0.5, "%"),
        }
    finally:
        environment.pystack("-f", str(file), "down", "--progress", "quiet")


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["idle", *sys.argv[1:]]))
