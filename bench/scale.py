"""How the control plane grows with the cluster: the production code on simulated nodes, ten tasks on each, in one thread.

CPU is this process's, without what nodes do with their manifests; the rest of the nodes (their status streams) is in it.
`python -m bench scale` says to which power of the nodes each step's CPU grows: 1 is linear. `python -m bench.scale --nodes 100
300 1000` prints the table of docs/scale.md."""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from bench.rows import Row, row, size
from bench.simulated import run, stack
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from tests.simulator.world import World

PER_NODE, REPLICAS = 10, 10
SIZES = (size(50, 5), size(200, 10))


class Step(msgspec.Struct, frozen=True):
    """What one step cost: CPU in seconds, virtual seconds until its end, transactions of the store, messages and bytes."""

    cpu: float
    took: float
    transactions: int
    messages: int
    sent: int


def grown(nodes: int, per_network: int = 0) -> tuple[dict[str, Step], float]:
    """The steps on a cluster of *nodes*, and the megabytes that the process has taken at most by then. *per_network*: services
    on each network; 0: all on one."""

    async def work(world: World, plane: ControlPlane) -> dict[str, Step]:
        services = nodes * PER_NODE // REPLICAS

        def up(version: int) -> Awaitable[Any]:
            options = UpOptions(timeout_s=3600)
            return plane.rollouts.up(stack(services, REPLICAS, version, per_network), options, lambda event: None)

        found = {"up": await _step(world, up(1)), "again": await _step(world, up(1)), "one change": await _step(world, up(2))}
        found["a quiet minute"] = await _step(world, asyncio.sleep(60))
        world.power_off(sorted(world.nodes)[-1])
        found["a node lost"] = await _step(world, _settled(world))
        return found

    with tempfile.TemporaryDirectory() as folder:
        steps = run(Path(folder), nodes, work)
    return steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


async def _settled(world: World) -> None:
    """Until all tasks run on nodes that are up."""
    async with asyncio.timeout(600):
        while True:
            await asyncio.sleep(1)
            (plane,) = world.leading.values()
            if all(world.nodes[t.node].up and t.name in world.nodes[t.node].containers for t in plane.state.tasks.values()):
                return


async def _step(world: World, work: Awaitable[Any]) -> Step:
    backing = world.backing
    before = (world.loop.time(), backing.transactions, world.messages, world.sent, world.nodes_cpu)
    start = time.process_time()
    failures = await work
    cpu = time.process_time() - start
    assert not failures, failures
    took, transactions, messages, sent, nodes = before
    return Step(
        cpu=cpu - (world.nodes_cpu - nodes),
        took=world.loop.time() - took,
        transactions=backing.transactions - transactions,
        messages=world.messages - messages,
        sent=world.sent - sent,
    )


def measure() -> dict[str, Row]:
    """The power with which CPU grows from the smaller cluster to the larger one; 1 is linear."""
    small, large = (grown(nodes)[0] for nodes in SIZES)
    return {f"scale_{step.replace(' ', '_')}": row(_power(small[step].cpu, large[step].cpu), 1.0, "") for step in small}


def _power(small: float, large: float, by: float = SIZES[1] / SIZES[0]) -> float:
    return max(0.0, math.log(max(large, 1e-6) / max(small, 1e-6)) / math.log(by))


def main() -> int:
    """Print the table of the clusters of `--nodes`, or run as the benchmark."""
    if "--nodes" not in sys.argv:
        from bench.__main__ import main as bench

        return bench(["scale", *sys.argv[1:]])
    parser = argparse.ArgumentParser(prog="python -m bench.scale")
    parser.add_argument("--nodes", type=int, nargs="+", required=True)
    parser.add_argument(
        "--per-network", type=int, default=0, metavar="SERVICES", help="on each network; without, all are on one"
    )
    given = parser.parse_args()
    sizes = sorted(given.nodes)
    found = {nodes: grown(nodes, given.per_network) for nodes in sizes}
    print("| nodes | tasks | step | CPU, ms | until it ended, s | transactions | messages | sent, kB | memory, MB |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for nodes, (steps, memory) in found.items():
        for name, step in steps.items():
            cells = (nodes, nodes * PER_NODE, name, f"{step.cpu * 1e3:.0f}", f"{step.took:.1f}", step.transactions)
            print("|", " | ".join(map(str, (*cells, step.messages, step.sent // 1000, f"{memory:.0f}"))), "|")
    if len(sizes) > 1:
        small, large = found[sizes[0]][0], found[sizes[-1]][0]
        powers = (f"{name} {_power(small[name].cpu, large[name].cpu, sizes[-1] / sizes[0]):.2f}" for name in small)
        print(f"\nCPU grows with the nodes to the power of: {', '.join(powers)}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
