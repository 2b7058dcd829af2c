"""Updates, scaling, drains and moves under connections by way of each of three nodes: short ones, and some that are kept."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.conftest import Stack, eventually
from tests.outages.sidecar import Asking

PORT = 18475
FILE = """
services:
  web:
    image: busybox
    command: /usr/bin/python3 -u /server.py
    working_dir: /tmp
    environment: [VERSION=%d]
    stop_grace_period: 20s
    ports: ['18475:80']
    healthcheck: {test: 'wget -q -O /dev/null http://127.0.0.1/', interval: 30s, start_interval: 500ms, start_period: 30s}
    volumes:
      - %s:/server.py:ro
      - %s:/record
      - /usr:/usr:ro
      - /usr/lib:/lib:ro
      - /usr/lib64:/lib64:ro
    deploy: {replicas: 6, update_config: {order: start-first, parallelism: 2}}
"""
MANY, FEW = 6, 3
UPDATES = 5
"""How many updates there are in a round."""


@dataclass
class Lost:
    """Requests by kind of connection and node, and those that failed with what was done meanwhile."""

    requests: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    """How often something was done, by what it was."""
    by_change: dict[str, list[float]] = field(default_factory=dict)
    """Of each change in which some were lost: how long after it began they did, in seconds."""
    servers: list[str] = field(default_factory=list)
    """What the servers had on record of the time in which some were lost: when they stalled, were asked to end, and ended."""


def measured(stack: Stack, rounds: int) -> Lost:
    """*rounds* of: UPDATES updates, start-first; scale down, scale up; drain a node, activate it, and move tasks back."""
    program = stack.directory / "server.py"
    shutil.copy(Path(__file__).with_name("server.py"), program)
    records = stack.directory / "record"
    records.mkdir(mode=0o777)
    stack.up(FILE % (0, program, records))
    urls = [f"http://10.99.0.{n}:{PORT}/" for n in (1, 2, 3)]
    asking = {how: Asking(stack, "outside", how, urls) for how in ("short", "keep")}
    done: list[tuple[float, str]] = []

    def change(what: str, work: Callable[[], object]) -> None:
        done.append((time.time(), what))
        work()
        for one in asking.values():
            one.answered()

    lab = stack.pystack
    try:
        for one in asking.values():
            one.answered()
        for number in range(rounds):
            for update in range(UPDATES):
                change("update", partial(stack.up, FILE % (number * UPDATES + update + 1, program, records)))
            change("scale down", partial(stack.run, "scale", f"web={FEW}"))
            change("scale up", partial(stack.run, "scale", f"web={MANY}"))
            node = f"n{number % 2 + 2}"
            change("drain", partial(lab, "node", "drain", node))
            change("activate", partial(lab, "node", "activate", node))
            change("rebalance", partial(lab, "rebalance"))
            eventually(lambda: _running(stack))
    finally:
        for one in asking.values():
            one.stop()
    return _judged(asking, done, records)


def _judged(asking: Mapping[str, Asking], done: Sequence[tuple[float, str]], records: Path) -> Lost:
    """What was lost, beside what was done, and when, and what the servers wrote to *records*."""
    out = Lost(changes=Counter(what for _, what in done))
    of_servers = [json.loads(line) for file in records.iterdir() for line in file.read_text().splitlines()]
    for how, one in asking.items():
        for row in one.rows:
            out.requests[f"{how} {row['url']}"] += 1
            if row["problem"]:
                begun = row["begun"]
                when, what = next((one for one in reversed(done) if one[0] <= begun), (begun, "before"))
                out.lost.append(f"{how} {row['url']}, {begun - when:.2f} s after {what} began: {row['problem']}")
                out.servers += [
                    f"{r['server']} {r['what']} {r['since'] - when:.2f} to {r['until'] - when:.2f} s after {what} began"
                    for r in of_servers
                    if r["since"] <= row["ended"] and r["until"] >= begun
                ]
                out.by_change.setdefault(f"{what} {done.index((when, what)) if (when, what) in done else ''}", []).append(
                    begun - when
                )
    return out


def _running(stack: Stack) -> None:
    assert {row["state"] for row in stack.ps().values()} == {"running"}
