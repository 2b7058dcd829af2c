"""Loading and planning: a stack of 1,000 services and one of 10, against the YAML parser alone and the interpreter's start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from bench.environment import Environment
from bench.rows import Row, row, size
from orchestrator.stackfile.load import Options, load

ROUNDS, LARGE = size(5, 1), size(1000, 20)


def document(services: int) -> str:
    """A stack file with that many *services*."""
    lines = ["services:"]
    for n in range(services):
        lines += [
            f"  s{n}:",
            "    image: busybox",
            "    command: sleep 1000",
            f"    environment: {{NUMBER: '{n}', PEER: '${{PEER:-none}}'}}",
            f"    depends_on: [s{n - 1}]" if n % 10 else "    restart: always",
            "    networks: [front]",
            "    deploy: {replicas: 1, resources: {limits: {memory: 64m}}}",
        ]
    return "\n".join([*lines, "networks: {front: {ipam: {config: [{subnet: 10.40.0.0/16}]}}}"]) + "\n"


def _middle(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def measure(environment: Environment) -> dict[str, Row]:
    """Rows of loading and planning, in seconds, for 1,000 services and for 10."""
    rows = {}
    python = _middle(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    for services in (LARGE, 10):
        file = Path(environment.root) / f"of{services}.yml"
        text = document(services)
        file.write_text(text)
        parser = _middle(partial(yaml.load, text, Loader=yaml.CSafeLoader))
        options = Options(files=(str(file),), project_name="bench")
        rows[f"load{services}"] = row(_middle(partial(load, options, {})), parser)
        whole = _middle(partial(environment.pystack, "-f", str(file), "plan", "-p", f"of{file.stem}", "--json"))
        rows[f"plan{services}"] = row(whole, python if services == 10 else parser)
    return rows


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["loading", *sys.argv[1:]]))
