"""Large streams and many listeners, Docker's own command or requests against a node and against dockerd on it, turn by turn:
`cp` into and out of a container, the context of a build, `logs`, and events to many that listen."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from bench.cli import Daemon
from bench.environment import Environment, docker
from bench.rows import Row, row, size

ROUNDS, FILES = size(3, 1), size(50, 5)
COPIED_MB, LOG_MB = size(500, 5), size(1000, 5)
LISTENERS, EVENTS = size(200, 5), size(100, 5)
QUIET, TALKER, PATIENCE_S = "bench-streams-quiet", "bench-streams-talker", 60.0
FILTERS = '{"event":["tag"]}'
Side = Callable[..., float]


def measure(environment: Environment) -> dict[str, Row]:
    """Rows in seconds, the baseline dockerd's; none where it is not installed, as there is nothing to compare with."""
    with docker(environment) as there:
        if not there or not shutil.which("docker"):
            return {}

        def ours(*words: str) -> float:
            return environment.timed([*words], DOCKER_HOST=f"unix://{environment.root}/run/docker.sock", DOCKER_BUILDKIT="0")

        def theirs(*words: str) -> float:
            return environment.timed([*words], DOCKER_HOST=f"unix://{environment.docker_socket}", DOCKER_BUILDKIT="0")

        sides = (ours, theirs)
        folder = _context(environment.root / "streams")
        try:
            for side in sides:
                side("docker", "run", "-d", "--name", QUIET, "busybox", "sleep", "10000")
                _talk(side)
            rows = _copied(sides, folder) | _built(sides, folder) | _logs(sides)
        finally:
            for side in sides:
                side("docker", "rm", "-f", QUIET, TALKER)
            shutil.rmtree(folder)
        sockets = (f"{environment.root}/run/docker.sock", str(environment.docker_socket))
        return rows | {f"events to {LISTENERS} listeners": _row([[_notified(path) for path in sockets] for _ in range(ROUNDS)])}


def _row(rounds: list[list[float]]) -> Row:
    ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
    return row(ours, theirs)


def _context(folder: Path) -> Path:
    """A folder of COPIED_MB in FILES files of noise, and a Dockerfile that uses none of them."""
    folder.mkdir()
    for number in range(FILES):
        (folder / f"noise{number}").write_bytes(os.urandom((COPIED_MB << 20) // FILES))
    (folder / "Dockerfile").write_text("FROM busybox\nLABEL bench=streams\n")
    return folder


# --- streams ----------------------------------------------------------------------------------------------------


def _copied(sides: tuple[Side, ...], folder: Path) -> dict[str, Row]:
    into, out = [], []
    for _ in range(ROUNDS):
        into.append([side("docker", "cp", str(folder), f"{QUIET}:/copied") for side in sides])
        back = []
        for side in sides:
            back.append(side("docker", "cp", f"{QUIET}:/copied", str(folder / "back")))
            shutil.rmtree(folder / "back")
            side("docker", "exec", QUIET, "rm", "-r", "/copied")
        out.append(back)
    return {f"cp of {COPIED_MB} MB in": _row(into), f"cp of {COPIED_MB} MB out": _row(out)}


def _built(sides: tuple[Side, ...], folder: Path) -> dict[str, Row]:
    words = ("docker", "build", "--no-cache", "-q", "-t", "bench-streams", str(folder))
    return {f"build context of {COPIED_MB} MB": _row([[side(*words) for side in sides] for _ in range(ROUNDS)])}


def _talk(side: Side) -> None:
    """Have a container that has written LOG_MB of lines, and ended."""
    script = f"yes 'what a program says, line after line, of which there are millions' | head -c {LOG_MB << 20}"
    side("docker", "run", "--name", TALKER, "--log-driver", "json-file", "-d", "busybox", "sh", "-c", script)
    side("docker", "wait", TALKER)


def _logs(sides: tuple[Side, ...]) -> dict[str, Row]:
    words = ("sh", "-c", f"test $(docker logs {TALKER} | wc -c) = {LOG_MB << 20}")
    return {f"logs of {LOG_MB} MB": _row([[side(*words) for side in sides] for _ in range(ROUNDS)])}


# --- events -----------------------------------------------------------------------------------------------------


def _notified(path: str) -> float:
    """Seconds from the first of EVENTS tags of an image until each of LISTENERS has seen them all. Raises TimeoutError."""
    daemon, name = Daemon(path), "bench-streams-tag"
    waiting = selectors.DefaultSelector()
    seen: dict[socket.socket, bytes] = {}
    try:
        for _ in range(LISTENERS):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            sock.sendall(f"GET /v1.41/events?filters={quote(FILTERS)} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
            seen[sock] = b""
            while b"\r\n\r\n" not in seen[sock]:
                seen[sock] += sock.recv(4096)
            waiting.register(sock, selectors.EVENT_READ, sock)
        begun = time.perf_counter()
        for number in range(EVENTS):
            daemon.ask("POST", f"/images/busybox/tag?repo={name}&tag=n{number}")
        while waiting.get_map():
            if not (ready := waiting.select(PATIENCE_S)):
                raise TimeoutError(f"{len(waiting.get_map())} of {LISTENERS} listeners miss events")
            for key, _ in ready:
                listener: socket.socket = key.data
                seen[listener] += listener.recv(1 << 16)
                if seen[listener].count(b'"Action":"tag"') >= EVENTS:
                    waiting.unregister(listener)
        return time.perf_counter() - begun
    finally:
        waiting.close()
        for sock in seen:
            sock.close()
        for number in range(EVENTS):
            daemon.ask("DELETE", f"/images/{name}:n{number}")


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["streams", *sys.argv[1:]]))
