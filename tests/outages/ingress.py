"""Updates, moves and losses of nodes, under requests by way of the cluster's ingress at each of three nodes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, tar_of
from tests.outages.sidecar import Reading

HOST = "loss.internal"
SERVER = {
    "admin": {"disabled": True},
    "apps": {
        "http": {
            "grace_period": "20s",
            "servers": {
                "web": {
                    "listen": [":80"],
                    "automatic_https": {"disable": True},
                    "routes": [{"handle": [{"handler": "static_response", "body": "{env.VERSION}"}]}],
                }
            },
        }
    },
}
"""A Caddy as the service: after SIGTERM it takes no new connection, closes idle ones, answers the others, and ends."""
FILE = """
services:
  web:
    image: draining
    stop_grace_period: 20s
    environment: {VERSION: '%d'}
    healthcheck: {test: 'wget -q -O /dev/null http://127.0.0.1/', interval: 30s, start_interval: 300ms, start_period: 30s}
    expose: [80]
    deploy:
      replicas: 3
      placement: {max_replicas_per_node: 2}
      update_config: {parallelism: 1, order: %s}
    x-ingress: [{host: loss.internal, port: 80}]
"""


@dataclass
class Lost:
    """What clients saw. *changes* counts by kind; *lost* are requests that failed, by the kind of change that went on."""

    changes: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    again: int = 0
    slowest_s: dict[str, float] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)
    before_loss: int = 0
    """Of those lost with a node, how many had begun before it was gone: a lab takes a tenth of a second for it."""
    seconds: float = 0.0


class Asking(Reading):
    """The clients, on the machine outside."""

    def __init__(self, lab: Pystack, root: str, rate: float, addresses: list[str]) -> None:
        program = str(Path(__file__).with_name("https_clients.py"))
        words = ["nsenter", "-t", lab.pid("outside"), "-n", sys.executable, program, root, HOST, str(rate), *addresses]
        super().__init__(words, stdin=subprocess.PIPE)

    def at(self, *nodes: int) -> None:
        """Ask these from now on."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(f"10.99.0.{n}" for n in nodes) + "\n")
        self.process.stdin.flush()
        self.answered()

    def answered(self) -> None:
        """Wait until requests of each kind that begin now are answered."""
        now = time.time()
        eventually(lambda: self._since(now), 60)

    def _since(self, now: float) -> None:
        rows = self.rows[-400:]
        assert {r["how"] for r in rows if r["begun"] > now and not r["problem"]} == {"short", "keep"}

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self._reader.join(60)
        self.process.wait()


def measured(stack: Stack, rate: float, updates: int, moves: int, losses: int) -> Lost:
    """What is lost of *rate* requests a second of each kind during so many rolling updates, drained nodes and power cuts."""
    lab, folder = stack.pystack, stack.directory
    _load_image(lab, folder)
    lab("ingress", "up")
    _up(stack, 0)
    root = folder / "root.pem"
    root.write_text(lab("ingress", "ca").stdout)
    asking = Asking(lab, str(root), rate, [f"10.99.0.{n}" for n in (1, 2, 3)])
    done: list[tuple[float, str]] = []
    gone: dict[float, float] = {}  # when a node that began to lose its power had none any more
    began = time.time()
    try:
        asking.answered()
        for number in range(1, updates + 1):
            done.append((time.time(), "update"))
            _up(stack, number)
        for number in range(moves):
            away = number % 2 + 2
            asking.at(1, 5 - away)
            done.append((time.time(), "move"))
            lab("node", "drain", f"n{away}")
            lab("node", "activate", f"n{away}")
            _spread(stack, number)
            asking.at(1, 2, 3)
        for number in range(losses):
            away = number % 2 + 2
            asking.at(1, 5 - away)
            done.append((time.time(), "loss"))
            lab("lab", "fault", "--name", lab.lab, "crash", f"n{away}")
            gone[done[-1][0]] = time.time()
            eventually(lambda away=away: _none_on(stack, f"n{away}"), 90)  # type: ignore[misc]
            asking.answered()
            lab("lab", "fault", "--name", lab.lab, "boot", f"n{away}")
            eventually(lambda: _proxies(lab), 90)
            _spread(stack, number)
            asking.at(1, 2, 3)
    finally:
        asking.stop()
    return _lost(asking.rows, done, gone, time.time() - began)


def _load_image(lab: Pystack, folder: Path) -> None:
    program = shutil.which("caddy")
    assert program, "caddy is not installed: run `make setup`"
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
    files = {"server.json": json.dumps(SERVER).encode(), "bin/caddy": Path(program).read_bytes()}
    files |= {library.lstrip("/"): Path(library).read_bytes() for library in libraries}
    command = {"Cmd": ["/bin/caddy", "run", "--config", "/server.json"], "Env": ["HOME=/tmp"]}
    archive(
        folder / "draining.tar", [busybox_rootfs(), tar_of(files)], config=command, name="docker.io/library/draining:latest"
    )
    lab("image", "load", "-i", str(folder / "draining.tar"))


def _up(stack: Stack, number: int) -> None:
    stack.up(FILE % (number, "start-first" if number % 2 else "stop-first"))


def _spread(stack: Stack, number: int) -> None:
    """Bring the tasks back to three nodes: they stay where they are until there is something to do."""
    _up(stack, 1_000_000 + number)


def _none_on(stack: Stack, node: str) -> None:
    rows = stack.ps().values()
    assert len([r for r in rows if r["state"] == "running" and r["node"] != node]) >= 3, list(rows)


def _proxies(lab: Pystack) -> None:
    proxies = json.loads(lab("ingress", "inspect").stdout)["proxies"]
    assert {p["state"] for p in proxies} == {"ready"}, proxies
    assert len(proxies) == 3, proxies


def _lost(rows: list[dict[str, Any]], done: list[tuple[float, str]], gone: Mapping[float, float], seconds: float) -> Lost:
    out = Lost(changes=Counter(what for _, what in done), seconds=seconds)
    for row in rows:
        when, what = next((one for one in reversed(done) if one[0] <= row["ended"]), (row["begun"], "before"))
        out.requests[row["how"]] += 1
        out.again += row["again"]
        took = row["ended"] - row["begun"]
        out.slowest_s[what] = max(took, out.slowest_s.get(what, 0.0))
        if row["problem"]:
            after = row["begun"] - when
            out.before_loss += what == "loss" and row["begun"] <= gone.get(when, when)
            number = done.index((when, what)) if (when, what) in done else -1
            text = (
                f"{row['how']} at {row['at']}, begun {after:.2f} s after change {number}, took {took:.2f} s: {row['problem']}"
            )
            out.lost.setdefault(what, []).append(text)
    return out
