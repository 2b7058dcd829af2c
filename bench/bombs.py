"""Three containers that take memory, processes, disk and log as fast as they can: what agent and neighbours still do.

Each bomb has limits; the figures are how long the agent and another container take to answer, against the same at
rest, in the same run. Goal: at most twice as long.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bench.environment import LAB, Environment, environment
from bench.page import replace_section
from bench.resources import Stack, loop
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs

SECONDS = size(60, 2)
IDLE_SECONDS = size(20, 2)
MEMORY_MIB, PIDS, LOG_MIB = 64, 60, 1
BOMB = (
    "(while :; do head -c 300000000 /dev/zero | tail -n 1 > /dev/null; done) & "
    "(while :; do for n in $$(seq 20); do sleep 5 & done; sleep 0.1; done) 2> /dev/null & "
    "(while :; do dd if=/dev/zero of=/data/$$HOSTNAME bs=64k count=8000; rm -f /data/$$HOSTNAME; done) 2> /dev/null & "
    "while :; do yes 0123456789012345678901234567890123456789; done"
)
"""Memory, processes, disk and log."""
STACK = """
services:
  web: {{image: busybox, command: busybox httpd -f -p 80 -h /srv, stop_grace_period: 0s}}
  bomb:
    image: busybox
    command: ["sh", "-c", "{bomb}"]
    scale: {bombs}
    stop_signal: SIGKILL
    restart: always
    cpus: 0.2
    mem_limit: {memory}m
    memswap_limit: {memory}m
    pids_limit: {pids}
    logging: {{driver: json-file, options: {{max-size: {log}m, max-file: "2"}}}}
    volumes: ["data:/data"]
    blkio_config: {{device_write_bps: [{{path: data, rate: 5mb}}]}}
volumes: {{data: {{driver_opts: {{type: ext4, device: {device}}}}}}}
"""
CLIENT = """
import http.client, json, socket, sys, time
where, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.settimeout(30); self.sock.connect(where)
took, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    began = time.monotonic()
    one = Local("x") if where.startswith("/") else http.client.HTTPConnection(where, timeout=30)
    one.request("GET", path); one.getresponse().read(); one.close()
    took.append(time.monotonic() - began)
    time.sleep(0.05)
print(json.dumps(took))
"""


def measure() -> dict[str, Row]:
    """Seconds of an answer under bombs against those at rest: the middle one, and the slowest of twenty. Writes docs/limits.md
    where all is measured in full."""
    with environment() as made, loop(made.root / "loop") as device:
        found = Bombs(made, device).rows()
    if SECONDS > IDLE_SECONDS:
        write(found)
    return found


def write(found: Mapping[str, Row]) -> None:
    """The table."""
    lines = ["| who answers | of 20 answers | at rest, ms | beside the bombs, ms | ratio |", "|---|---|---|---|---|"]
    for name, one in found.items():
        _, who, which = name.split("_")
        rank = {"median": "the middle one", "p95": "the slowest but one"}[which]
        value, baseline = 1000 * float(one["value"]), 1000 * float(one["baseline"])
        lines.append(f"| {who} | {rank} | {baseline:.1f} | {value:.1f} | {value / baseline:.2f} |")
    replace_section("bombs", "\n".join(lines))


def text(device: str, bombs: int) -> str:
    """The stack, with so many *bombs*, whose volume is the file system on *device*."""
    return STACK.format(bomb=BOMB, bombs=bombs, memory=MEMORY_MIB, pids=PIDS, log=LOG_MIB, device=device)


class Bombs(Stack):
    """A server, and beside it none or three bombs."""

    def __init__(self, made: Environment, device: str) -> None:
        self.device = device
        super().__init__(made, text(device, 0))
        made.pystack(*self.pystack[1:], "exec", "-T", "web", "sh", "-c", "echo fine > /srv/index.html")

    def rows(self) -> dict[str, Row]:
        """The rows."""
        idle = self._answers(IDLE_SECONDS)
        self.up(text(self.device, 3))
        under = self._answers(SECONDS)
        self.down()
        found = {}
        for who, at_rest in idle.items():
            found[f"bombs_{who}_median"] = row(statistics.median(under[who]), statistics.median(at_rest))
            found[f"bombs_{who}_p95"] = row(_p95(under[who]), _p95(at_rest))
        return found

    def _answers(self, seconds: float) -> dict[str, list[float]]:
        """Seconds of each answer of the agent and of the server, asked at the same time."""
        address = str(next(iter(self.tasks["web"]["addresses"].values())))
        asked = {"agent": (str(self.made.root / "run/docker.sock"), "/containers/json"), "neighbour": (address, "/")}
        words = [*labs.enter(labs.find(LAB), "n1"), sys.executable, "-c", CLIENT]
        running = {
            who: subprocess.Popen([*words, *of, str(seconds)], stdout=subprocess.PIPE, text=True) for who, of in asked.items()
        }
        return {who: list(json.loads(one.communicate()[0])) for who, one in running.items()}


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["bombs", *sys.argv[1:]]))
