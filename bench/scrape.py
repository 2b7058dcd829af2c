"""What Prometheus' questions cost: of a node with 100 containers, and of the server of 300 tasks, as a part of one core.

The containers are processes whose control groups and interfaces are read as a container's are; what the server spends on
passing a node's answer on is not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.api import metrics as node
from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from bench.rows import Row, row, size
from orchestrator.gitops.gitops import Gitops
from orchestrator.ingress.controller import Ingress
from orchestrator.metrics.families import encoded, families
from orchestrator.server.plane import ControlPlane
from orchestrator.store.sqlite import SqliteStore

CONTAINERS, TASKS, ROUNDS = size(100, 2), size(300, 3), size(20, 1)
INTERVAL_S = 15.0
"""How often Prometheus asks."""
GOAL = 1.0
"""Percent of a core."""
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"


def measure() -> dict[str, Row]:
    """Rows of a node's answer, and of the server's."""
    of_node = _percent(_of_node())
    server = asyncio.run(_of_server())
    return {
        f"scrape_of_{CONTAINERS}_containers": row(of_node, GOAL, "% of a core"),
        f"scrape_of_{TASKS}_tasks": row(server, GOAL, "% of a core"),
    }


def _of_node() -> float:
    """Seconds of CPU for an answer."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(["sleep", "1000"])) for _ in range(CONTAINERS)]
        for child in children:
            stack.callback(child.kill)
        group = next(one for one in Path("/proc/self/cgroup").read_text().splitlines()).rpartition(":")[2]
        scraped = [
            node.Scraped((group, f"c{n}", "shop", "s", "web"), child.pid, 64 << 20, time.time())
            for n, child in enumerate(children)
        ]
        began = time.process_time()
        for _ in range(ROUNDS):
            node.encoded(node.read(scraped), node.Own({}, "/"), ACCEPT)
        return (time.process_time() - began) / ROUNDS


async def _of_server() -> float:
    """Percent of a core."""
    with tempfile.TemporaryDirectory(prefix="pystack-bench-") as folder:
        store = await SqliteStore.open(Path(folder) / "store.db")
        plane = ControlPlane(store, "n1", Path(folder) / "d", Path(folder) / "run", Path(folder) / "keys")
        ingress = Ingress(plane)
        for n in range(TASKS):
            name, service = f"s-web{n % 30}-{n}", f"web{n % 30}"
            plane.state.tasks[name] = Task(
                name=name, stack="s", service=service, node="n1", container=Container(image="i"), desired="running"
            )
            plane.statuses.by_task[name] = TaskStatus(task=name, state="running")
        found = _percent(_of_plane(plane, ingress, Gitops(plane, Path(folder), Path(folder))))
        await store.close()
        return found


def _of_plane(plane: ControlPlane, ingress: Ingress, gitops: Gitops) -> float:
    began = time.process_time()
    for _ in range(ROUNDS):
        encoded(list(families(plane, ingress, gitops)), ACCEPT)
    return (time.process_time() - began) / ROUNDS


def _percent(seconds: float) -> float:
    return seconds / INTERVAL_S * 100


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["scrape", *sys.argv[1:]]))
