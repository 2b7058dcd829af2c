"""A server with 100 nodes that have nothing new to say: real agents behind real SSH connections, in a lab."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.environment import LAB, Environment
from bench.idle import SERVER, cpu_of, ours
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs

NODES, SECONDS, SETTLE_S, GOAL_PERCENT = size(100, 2), size(20, 1), size(5, 0), 5.0


def measure() -> dict[str, Row]:
    """The row of the idle server's processor time, in percent of one core."""
    begin = time.perf_counter()
    subprocess.run([".venv/bin/pystack", "lab", "up", "--name", LAB, "--nodes", str(NODES)], check=True, capture_output=True)
    took = time.perf_counter() - begin
    try:
        environment = Environment(labs.LABS / LAB / "n1")
        time.sleep(SETTLE_S)
        pids = ours(environment, SERVER)
        before = sum(cpu_of(pid) for pid in pids)
        time.sleep(SECONDS)
        used = (sum(cpu_of(pid) for pid in pids) - before) / SECONDS * 100
    finally:
        subprocess.run([".venv/bin/pystack", "lab", "down", "--name", LAB], check=True, capture_output=True)
    print(f"a lab of {NODES} nodes was up after {took:.0f} s")
    return {"server_with_100_nodes": row(used, GOAL_PERCENT, "%")}


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["fleet", *sys.argv[1:]]))
