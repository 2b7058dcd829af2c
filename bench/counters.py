"""What noise cannot move: modules, function calls, transactions, messages and bytes, each beside its figure in counters.json.

`python -m bench counters` shows them. `python -m bench.counters --write` keeps the present figures: a change that is worth its
price does that, and its commit says why. `tests/bench/test_counters.py` holds them. The control plane is the real one, on the
simulator's cluster (`tests/simulator`): five nodes, virtual time, one seed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.container import Attachment, Container
from bench.placement import groups, nodes
from bench.rows import Row, row
from orchestrator.placement.greedy import place
from orchestrator.placement.node_table import NodeTable
from orchestrator.server import lifecycle
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Service, Stack, StackNetwork, UpdateConfig
from tests.simulator.clock import VirtualLoop
from tests.simulator.world import World, simulated

KEPT = Path(__file__).with_name("counters.json")
ROOT = Path(__file__).parents[1]
ORDERED = {**os.environ, "PYTHONHASHSEED": "0"}
SERVICES, REPLICAS = 10, 5
NODES, GROUPS = 100, 100


class Calls:
    """Counts the calls of functions, those in C too, while it is entered."""

    def __enter__(self) -> Calls:
        self.count = 0
        sys.setprofile(self._called)
        return self

    def _called(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def _modules(*words: str) -> int:
    """How many modules `pystack` *words* loads."""
    code = f"import sys, os; from orchestrator.cli import cli; cli.main({list(words)!r}, standalone_mode=False)"
    script = code + "; os.write(2, str(len(sys.modules)).encode())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    return int(done.stderr)


def _load_calls(folder: Path) -> int:
    """Of a stack file of 100 services, when the modules are loaded already."""
    file = folder / "compose.yml"
    body = "{image: busybox, ports: ['80'], environment: {A: $HOME}, depends_on: [s0], deploy: {replicas: 2}}"
    file.write_text("name: big\nservices:\n  s0: {image: busybox}\n" + "".join(f"  s{n}: {body}\n" for n in range(1, 100)))
    options = Options(files=(str(file),))
    load(options, {"HOME": "/"})
    with Calls() as calls:
        load(options, {"HOME": "/"})
    return calls.count


def _placement_calls() -> int:
    hosts, wanted = nodes(NODES), groups(GROUPS)
    names = {n.name for n in hosts}
    place(NodeTable(hosts, names), wanted)
    table = NodeTable(hosts, names)
    with Calls() as calls:
        place(table, wanted)
    return calls.count


def _stack(version: int) -> Stack:
    """Ten services of five replicas on one network; *version* is the first one's image."""

    def service(number: int) -> Service:
        image = f"s{number}:{version if number == 0 else 1}"
        container = Container(
            image=image, restart="always", stop_signal="SIGKILL", attachments=(Attachment(network="a_default"),)
        )
        return Service(
            name=f"s{number}", container=container, where="f:1", replicas=REPLICAS, update=UpdateConfig(order="start-first")
        )

    return Stack(
        name="a", networks=(StackNetwork(key="default", name="a_default"),), services=tuple(service(n) for n in range(SERVICES))
    )


async def _control_plane(world: World) -> dict[str, int]:
    for name in world.nodes:
        world.power_on(name)
    async with asyncio.timeout(60):
        while not world.leading or not all(p.loaded for p in world.leading.values()):
            await asyncio.sleep(1)
    await asyncio.sleep(5)
    (plane,) = world.leading.values()
    found: dict[str, int] = {}

    def up(version: int) -> Awaitable[Any]:
        return plane.rollouts.up(_stack(version), UpOptions(), lambda event: None)

    await _counted(world, found, "up", up(1))
    await _counted(world, found, "noop_up", up(1))
    await _counted(world, found, "update", up(2))
    await _counted(world, found, "down", _down(plane))
    await _counted(world, found, "quiet_minute", asyncio.sleep(60))
    return found


def _down(plane: ControlPlane) -> Awaitable[Any]:
    return lifecycle.down(plane.dispatcher, "a", volumes=False, emit=lambda event: None)


async def _counted(world: World, found: dict[str, int], step: str, work: Awaitable[Any]) -> None:
    def now() -> dict[str, int]:
        backing = world.backing
        return {
            "transactions": backing.transactions,
            "bytes_stored": backing.written,
            "messages": world.messages,
            "bytes_sent": world.sent,
        }

    before = now()
    failures = await work
    assert not failures, failures
    found |= {f"{step}_{what}": after - before[what] for what, after in now().items()}


def counted() -> dict[str, int]:
    """Every counter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "start_modules": _modules("--version"),
            "config_modules": _modules("-f", "examples/quickstart/stack.yml", "config"),
            "load_calls": _load_calls(folder),
            "placement_calls": _placement_calls(),
        }
        random.seed(1)
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        world = World(loop, 1, folder)
        try:
            with simulated(world):
                found |= loop.run_until_complete(_control_plane(world))
        finally:
            with simulated(world):
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(100))
            loop.close()
            asyncio.set_event_loop(None)
    return found


def measure() -> dict[str, Row]:
    """Each counter beside the one that is kept; what was 0 is compared with 1."""
    kept = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, int])
    return {name: row(value, max(1, kept.get(name, value)), "") for name, value in counted().items()}


def main() -> int:
    """With `--write`, keep the present figures; else show them."""
    if sys.argv[1:] == ["--write"]:
        if os.environ.get("PYTHONHASHSEED") != "0":  # some orders, and with them bytes, follow the hashes of this process
            return subprocess.run(
                [sys.executable, "-m", "bench.counters", "--write"], env=ORDERED, cwd=ROOT, check=True
            ).returncode
        KEPT.write_text(json.dumps(counted(), indent=2) + "\n")
        return 0
    from bench.__main__ import main as bench

    return bench(["counters", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
