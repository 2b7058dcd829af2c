"""Docker's own command against a node and against dockerd on the same node, turn by turn: `run --rm`, `ps`, `exec`; and the
requests behind them without the command, whose own time is the same on both sides."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

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
            rows = _turns(sides)
            if there:
                rows |= _without_command(f"{environment.root}/run/docker.sock", str(environment.docker_socket))
            return rows
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


class Daemon:
    """The requests of the three commands, one connection for each."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer; None if it is none. Raises RuntimeError."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        with contextlib.closing(http.client.HTTPConnection("docker")) as connection:
            connection.sock = sock
            data = json.dumps(body) if body is not None else None
            connection.request(method, f"/v1.41{path}", data, {"Content-Type": "application/json", "Connection": "close"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status >= 400:
                raise RuntimeError(f"{method} {path}: {reply.status} {text[:200]!r}")
            return json.loads(text) if text[:1] in (b"{", b"[") else None

    def run(self) -> None:
        """As `docker run --rm`."""
        made = self.ask("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
        self.ask("POST", f"/containers/{made}/start")
        self.ask("POST", f"/containers/{made}/wait")
        self.ask("DELETE", f"/containers/{made}")

    def ps(self) -> None:
        """As `docker ps`."""
        self.ask("GET", "/containers/json")

    def exec(self) -> None:
        """As `docker exec`."""
        made = self.ask("POST", "/containers/bench-cli-0/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        self.ask("POST", f"/exec/{made}/start", {"Detach": False})


def _without_command(*paths: str) -> dict[str, Row]:
    """Rows of the daemons at the two sockets, in seconds; they take turns."""
    sides = [Daemon(path) for path in paths]

    def took(name: str) -> Iterator[float]:
        for side in sides:
            begun = time.perf_counter()
            getattr(side, name)()
            yield time.perf_counter() - begun

    rows: dict[str, Row] = {}
    for name in ("run", "ps", "exec"):
        ours, theirs = zip(*(tuple(took(name)) for _ in range(ROUNDS)), strict=True)
        rows[f"docker {name}, its requests alone"] = row(statistics.median(ours), statistics.median(theirs))
    return rows
