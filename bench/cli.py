"""Docker's own command against a node and against dockerd on the same node, turn by turn: `run --rm`, `ps`, `exec`."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable

from bench.environment import Environment, docker
from bench.rows import Row, row, size

ROUNDS, THERE = size(15, 2), size(20, 2)
GOAL = {"run": 0.35, "ps": 0.1, "exec": 0.2}
"""Seconds, where there is no rival."""


def measure(environment: Environment) -> dict[str, Row]:
    """Rows of each command, in seconds; none if there is no `docker` client."""
    if not shutil.which("docker"):
        print("there is no `docker` client on PATH")
        return {}

    def ours(*words: str) -> float:
        return environment.timed(["docker", *words], DOCKER_HOST=f"unix://{environment.root}/run/docker.sock")

    def theirs(*words: str) -> float:
        return environment.docker("docker", *words)

    with docker(environment) as there:
        sides = [ours, theirs] if there else [ours]
        try:
            return _turns(sides)
        finally:
            for side in sides:
                side("rm", "-f", *(f"bench-cli-{n}" for n in range(THERE)))


def _turns(sides: list[Callable[..., float]]) -> dict[str, Row]:
    """Each command ROUNDS times on each side, with THERE containers running."""
    for side in sides:
        for number in range(THERE):
            side("run", "-d", "--name", f"bench-cli-{number}", "busybox", "sleep", "1000")
    commands = {
        "run": ("run", "--rm", "busybox", "true"),
        "ps": ("ps",),
        "exec": ("exec", "bench-cli-0", "true"),
    }
    rows: dict[str, Row] = {}
    for name, words in commands.items():
        took: list[list[float]] = [[] for _ in sides]
        for _ in range(ROUNDS):
            for index, side in enumerate(sides):
                took[index].append(side(*words))
        medians = [statistics.median(each) for each in took]
        rows[f"docker {name}, Docker's own command"] = row(medians[0], medians[1] if len(medians) > 1 else GOAL[name])
    return rows
