"""A drain belongs to the cluster: who began it may go, and so may the server that was at it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

SLOW = """
services:
  web:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    healthcheck: {test: sleep 1, interval: 1s, start_interval: 1s, start_period: 30s}
    deploy: {replicas: 4, placement: {max_replicas_per_node: 4}, update_config: {parallelism: 1, order: start-first}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


@pytest.fixture
def stacks(lab: Pystack, tmp_path: Path) -> Iterator[list[Stack]]:
    made = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        made.append(Stack(lab, tmp_path / str(number)))
    for stack in made:
        stack.up(SLOW)
    yield made
    lab("node", "activate", "n2")
    for stack in made:
        stack.down()


def on(stacks: list[Stack], node: str) -> int:
    return Counter(row["node"] for stack in stacks for row in stack.ps().values())[node]


def _killed_client(lab: Pystack, client: subprocess.Popen[bytes]) -> None:
    del lab
    assert client.poll() is None  # it is at it
    client.kill()


def _killed_server(lab: Pystack, client: subprocess.Popen[bytes]) -> None:
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
    assert client.wait(120) == 0  # it asked the next one to go on


@pytest.mark.parametrize("lost", [_killed_client, _killed_server], ids=["client", "server"])
def test_a_drain_goes_on(lab: Pystack, stacks: list[Stack], lost: Callable[[Pystack, subprocess.Popen[bytes]], None]) -> None:
    before = on(stacks, "n2")
    words = [sys.executable, "-m", "orchestrator", "node", "drain", "n2"]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        eventually(lambda: _check(on(stacks, "n2") < before), 30)
        lost(lab, client)

    def gone() -> None:
        done = lab("node", "ls", "--format", "json", check=False)
        assert done.returncode == 0  # a server that was killed begins anew
        assert {r["name"]: (r["state"], r["availability"]) for r in json.loads(done.stdout)}["n2"] == ("ready", "drain")
        assert on(stacks, "n2") == 0

    eventually(gone, 60)
    for stack in stacks:
        assert {row["state"] for row in stack.ps().values()} == {"running"}


def test_a_node_that_is_activated_is_emptied_no_further(lab: Pystack, stacks: list[Stack]) -> None:
    before = on(stacks, "n2")
    words = [sys.executable, "-m", "orchestrator", "node", "drain", "n2"]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        eventually(lambda: _check(on(stacks, "n2") < before), 30)
        lab("node", "activate", "n2")
        assert client.wait(60) == 0
    assert on(stacks, "n2") > 0


def test_what_no_other_node_could_take_goes_when_one_can(lab: Pystack, stacks: list[Stack]) -> None:
    lab("node", "drain", "n1")
    refused = lab("node", "drain", "n2", check=False)
    assert refused.returncode == 1
    assert "no node can take" in refused.stderr
    assert on(stacks, "n2") == 12
    lab("node", "activate", "n1")
    eventually(lambda: _check(on(stacks, "n1") == 12), 60)
    for stack in stacks:
        assert {row["state"] for row in stack.ps().values()} == {"running"}


def _check(holds: bool) -> None:
    assert holds
