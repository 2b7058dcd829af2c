"""Tasks of a high priority take the place of those of a low one, which wait and come back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

LOW = """
services:
  low:
    image: busybox
    command: sh -c 'trap "exit 0" TERM; sleep 10000 & wait'
    restart: always
    deploy:
      replicas: 4
      resources: {reservations: {memory: SIZE}}
"""
HIGH = """
services:
  high:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    x-priority: 10
    deploy:
      placement: {constraints: [node.hostname != n1]}
      resources: {reservations: {memory: SIZE}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


@pytest.fixture
def high(lab: Pystack, tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "high").mkdir()
    one = Stack(lab, tmp_path / "high")
    yield one
    one.down()


def half_a_node(lab: Pystack) -> str:
    """A little less than half of a node's memory, so that two tasks fit on each."""
    rows = lab.json("node", "ls", "--format", "json")
    return f"{int(min(r['capacity']['memory'] for r in rows) * 0.48)}b"


def states(stack: Stack) -> list[str]:
    return sorted(str(r["state"]) for r in stack.ps().values())


def they_are(stack: Stack, wanted: list[str]) -> None:
    done = stack.run("ps", "--format", "json", check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(r["state"] for r in json.loads(done.stdout)) == wanted


@contextmanager
def events(lab: Pystack) -> Iterator[list[str]]:
    lines: list[str] = []
    words = [sys.executable, "-m", "orchestrator", "events"]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        out = child.stdout
        reader = threading.Thread(target=lambda: lines.extend(iter(out.readline, "")))
        reader.start()
        try:
            yield lines
        finally:
            child.terminate()
            reader.join()


def test_room_is_made_and_given_back(stack: Stack, high: Stack, lab: Pystack) -> None:
    size = half_a_node(lab)
    low = LOW.replace("SIZE", size).replace("replicas: 4", "replicas: 6")
    stack.up(low)
    assert states(stack) == ["running"] * 6
    high.write(HIGH.replace("SIZE", size))
    planned = high.run("plan", check=False).stdout
    assert f"remove task {stack.name}-low-" in planned
    assert f"makes room for {high.name}-high-1 (priority 10, its own is 0)" in planned
    assert states(stack) == ["running"] * 6, "to plan changes nothing"
    with events(lab) as lines:
        high.up()
        eventually(lambda: any("preempted: it makes room for" in line for line in lines), 10)
    assert states(high) == ["running"]
    assert states(stack) == ["pending"] + ["running"] * 5
    (gone,) = (n for n, r in stack.ps().items() if r["state"] == "pending")
    assert "makes room for" in str(stack.ps()[gone]["error"])
    assert f"x-priority: it makes room for {high.name}-high-1" in stack.run("why", gone).stdout
    assert "takes the place of" in high.run("why-not", "high").stdout
    # the stack can be changed meanwhile: what waits goes on waiting
    done = stack.up(low.replace("sleep 10000", "sleep 20000"))
    assert f"{stack.name}-{gone} stays pending" in done.stdout + done.stderr
    assert states(stack) == ["pending"] + ["running"] * 5
    # another server of the same state knows it too
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
    eventually(lambda: they_are(stack, ["pending"] + ["running"] * 5), 60)
    high.down()
    eventually(lambda: they_are(stack, ["running"] * 6), 60)


RUNS = """
services:
  report:
    image: busybox
    command: "true"
    x-priority: 10
    x-schedule: "0 0 1 1 *"
    deploy: {resources: {reservations: {memory: SIZE}}}
"""


def test_room_is_made_for_runs_and_one_off_containers(stack: Stack, high: Stack, lab: Pystack) -> None:
    size, nodes = half_a_node(lab), len(lab.json("node", "ls", "--format", "json"))
    stack.up(LOW.replace("SIZE", size).replace("replicas: 4", f"replicas: {2 * nodes}"))
    high.up(RUNS.replace("SIZE", size))
    for words in (("cron", "run", "-p", high.name, "report"), ("-f", str(high.file), "run", "-p", high.name, "--rm", "report")):
        with events(lab) as lines:
            lab(*words)
            eventually(lambda: any("preempted: it makes room for" in line for line in lines), 10)
        eventually(lambda: they_are(stack, ["running"] * 2 * nodes), 60)
    equal = RUNS.replace("SIZE", size).replace("x-priority: 10", "x-priority: 0")
    high.up(equal)
    assert high.run("run", "--rm", "report", check=False).returncode == 1


def test_equals_are_left_alone(stack: Stack, high: Stack, lab: Pystack) -> None:
    size = half_a_node(lab)
    stack.up(LOW.replace("SIZE", size).replace("replicas: 4", "replicas: 6"))
    high.write(HIGH.replace("SIZE", size).replace("x-priority: 10", "x-priority: 0"))
    done = high.up(check=False)
    assert done.returncode == 1
    assert "no node can take" in done.stderr
    assert states(stack) == ["running"] * 6


def test_what_a_lost_node_had_takes_the_place_of_others(stack: Stack, high: Stack, lab: Pystack) -> None:
    size = half_a_node(lab)
    high.up(HIGH.replace("SIZE", size))
    stack.up(LOW.replace("SIZE", size).replace("replicas: 4", "replicas: 5"))
    home = str(high.ps()["high-1"]["node"])
    lab("lab", "fault", "--name", lab.lab, "crash", home)
    try:

        def moved() -> None:
            row = high.ps()["high-1"]
            assert row["node"] != home, row
            assert row["state"] == "running", row
            assert "pending" in states(stack)

        eventually(moved, 120)
    finally:
        lab("lab", "fault", "--name", lab.lab, "boot", home)
    eventually(lambda: they_are(stack, ["running"] * 5), 120)
