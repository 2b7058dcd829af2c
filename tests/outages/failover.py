"""How long a cluster of three servers is without one that leads, after its server is killed and after its machine is gone;
and how long until the tasks of a machine that is gone run elsewhere."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import STALE
from tests.conftest import Pystack, Stack, eventually

NODES = ("n1", "n2", "n3")
TRY_S, WITHIN_S = 0.02, 60.0
FILE = """
services:
  web:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {replicas: 6, placement: {max_replicas_per_node: 3}}
"""


@dataclass
class Failover:
    """Seconds from the command for each fault, its own start included, until a server answered again that leads."""

    killed_s: list[float] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)
    elsewhere_s: list[float] = field(default_factory=list)
    """Until all tasks of a machine that is gone ran on others; its server was one that waits."""
    of_leader_s: list[float] = field(default_factory=list)
    """The same of the machine whose server leads."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(lab: Pystack, node: str, path: str) -> Any:
    """What the server of *node* answers; None unless it leads."""
    connection = _Unix(Path(f"/var/lib/pystack-lab/{lab.lab}/{node}/run/pystack.sock"))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        leads = answer.status == 200 and not answer.getheader(STALE)
        return json.loads(body) if leads else None
    except OSError:
        return None
    finally:
        connection.close()


def _nodes(lab: Pystack, node: str) -> list[dict[str, Any]] | None:
    """The nodes as the server of *node* knows them; None unless it leads."""
    rows: list[dict[str, Any]] | None = _ask(lab, node, "/v1/nodes")
    return rows


def _leader(lab: Pystack, others_than: str = "") -> Iterator[str]:
    return (n for n in NODES if n != others_than and _nodes(lab, n) is not None)


def _settled(lab: Pystack) -> str:
    """The node whose server leads; AssertionError unless all nodes are ready for it."""
    first = next(_leader(lab), "")
    rows = _nodes(lab, first) if first else None
    assert rows
    assert [row["state"] for row in rows] == ["ready"] * len(NODES)
    return first


def _until_led(lab: Pystack, began: float, gone: str) -> float:
    while time.monotonic() - began < WITHIN_S:
        if next(_leader(lab, gone), ""):
            return time.monotonic() - began
        time.sleep(TRY_S)
    raise AssertionError(f"nobody leads after {WITHIN_S:.0f} s")


def _until_elsewhere(lab: Pystack, stack: str, began: float, gone: str) -> float:
    """Seconds until no task of *stack* is on *gone*, and all run."""
    while time.monotonic() - began < WITHIN_S:
        for node in (n for n in NODES if n != gone):
            tasks = _ask(lab, node, f"/v1/stacks/{stack}/tasks")
            if tasks and all(t["node"] != gone and t["state"] == "running" for t in tasks):
                return time.monotonic() - began
        time.sleep(TRY_S)
    raise AssertionError(f"tasks of {gone} do not run elsewhere after {WITHIN_S:.0f} s")


def _spread(lab: Pystack, stack: Stack) -> None:
    """Put the tasks on all nodes again, and wait until they run."""
    lab("rebalance")
    rows = stack.ps().values()
    assert {row["state"] for row in rows} == {"running"}
    assert {row["node"] for row in rows} == set(NODES)


def _lose(lab: Pystack, stack: Stack, gone: str, *, leads: bool) -> tuple[float, float]:
    """Cut the power of *gone*. Returns the seconds until a server led, and until its tasks ran elsewhere."""
    eventually(lambda: _spread(lab, stack), 60)
    began = time.monotonic()
    lab("lab", "fault", "--name", lab.lab, "crash", gone)
    led = _until_led(lab, began, gone) if leads else 0.0
    elsewhere = _until_elsewhere(lab, stack.name, began, gone)
    lab("lab", "fault", "--name", lab.lab, "boot", gone)
    return led, elsewhere


def measured(stack: Stack, rounds: int) -> Failover:
    """*rounds* of: kill the server that leads, which begins again at once; cut the power of the machine whose server leads, and
    of another."""
    lab, seen = stack.pystack, Failover()
    stack.up(FILE)
    for _ in range(rounds):
        first = eventually(lambda: _settled(lab), 60)
        began = time.monotonic()
        lab("lab", "fault", "--name", lab.lab, "kill", first, "server")
        seen.killed_s.append(_until_led(lab, began, ""))
        first = eventually(lambda: _settled(lab), 60)
        led, elsewhere = _lose(lab, stack, first, leads=True)
        seen.gone_s.append(led)
        seen.of_leader_s.append(elsewhere)
        first = eventually(lambda: _settled(lab), 60)
        seen.elsewhere_s.append(_lose(lab, stack, next(n for n in NODES if n != first), leads=False)[1])
    return seen
