"""What noise cannot move: modules, function calls, transactions, messages and bytes, each beside its figure in counters.json.

`python -m bench counters` shows them. `python -m bench.counters --write` keeps the present figures: a change that is worth its
price does that, and its commit says why. `tests/bench/test_counters.py` holds them. The control plane is the real one, on the
simulator's cluster (`tests/simulator`): five nodes, virtual time, one seed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from bench.placement import groups, nodes
from bench.rows import Row, row
from bench.simulated import run, stack
from orchestrator.placement.greedy import place
from orchestrator.placement.node_table import NodeTable
from orchestrator.server import lifecycle
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.stackfile.load import Options, load
from tests.simulator.world import World

KEPT = Path(__file__).with_name("counters.json")
ROOT = Path(__file__).parents[1]
ORDERED = {**os.environ, "PYTHONHASHSEED": "0"}
HOSTS, SERVICES, REPLICAS = 5, 10, 5
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


async def _control_plane(world: World, plane: ControlPlane) -> dict[str, int]:
    found: dict[str, int] = {}

    def up(version: int) -> Awaitable[Any]:
        return plane.rollouts.up(stack(SERVICES, REPLICAS, version), UpOptions(), lambda event: None)

    await _counted(world, found, "up", up(1))
    await _counted(world, found, "noop_up", up(1))
    await _counted(world, found, "update", up(2))
    await _counted(world, found, "down", lifecycle.down(plane.dispatcher, "a", volumes=False, emit=lambda event: None))
    await _counted(world, found, "quiet_minute", asyncio.sleep(60))
    return found


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
        return found | run(folder, HOSTS, _control_plane)


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
