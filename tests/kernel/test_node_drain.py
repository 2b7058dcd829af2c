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


GLOBAL = """
services:
  each: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {mode: global, placement: {constraints: [%s]}}}
"""


@pytest.fixture
def stack(lab: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(lab, tmp_path)
    yield made
    made.down()


def nodes_of(stack: Stack) -> list[tuple[str, str]]:
    return sorted((str(row["node"]), str(row["state"])) for row in stack.ps().values())


@pytest.mark.parametrize("drained", [("n2",), ("n1", "n2")])
def test_tasks_of_mode_global_come_back_to_a_node_that_is_activated(
    lab: Pystack, stack: Stack, drained: tuple[str, ...]
) -> None:
    stack.up(GLOBAL % "node.hostname != n9")
    for node in drained:
        lab("node", "drain", node)
    assert nodes_of(stack) == [(n, "running") for n in ("n1", "n2") if n not in drained]
    for node in drained:
        lab("node", "activate", node)
    eventually(lambda: _check(nodes_of(stack) == [("n1", "running"), ("n2", "running")]), 30)


def test_what_was_removed_before_a_drain_or_after_it_stays_away(lab: Pystack, stack: Stack) -> None:
    """A drain that took nothing of a service gives nothing back; and who removes it right after an activation means it."""
    stack.up(GLOBAL % "node.hostname != n9")
    stack.run("rm", "-s", "-f", "each")
    lab("node", "drain", "n2")
    lab("node", "activate", "n2")
    for _ in range(3):  # there is a second between two looks: some of these fall into one
        stack.up(GLOBAL % "node.hostname != n9")
        lab("node", "drain", "n2")
        lab("node", "activate", "n2")
        stack.run("rm", "-s", "-f", "each")
        assert stack.ps() == {}
    with pytest.raises(AssertionError):
        eventually(lambda: _check(stack.ps() != {}), 4)


def test_a_service_of_mode_global_that_was_removed_stays_away(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    stack.up(GLOBAL % "node.hostname != n9")
    stack.run("rm", "-s", "-f", "each")
    assert stack.ps() == {}
    (tmp_path / "witness").mkdir()
    witness = Stack(lab, tmp_path / "witness")
    lab("node", "label", "n1", "here=yes")
    witness.up(GLOBAL % "node.labels.here == yes")
    try:
        for _ in range(2):  # the second time, each stack has surely been looked at
            lab("node", "label", "n2", "here=yes")
            eventually(lambda: _check(nodes_of(witness) == [("n1", "running"), ("n2", "running")]), 30)
            lab("node", "label", "n2", "here-")
            witness.up(GLOBAL % "node.labels.here == yes")
            assert nodes_of(witness) == [("n1", "running")]
        assert stack.ps() == {}
    finally:
        witness.down()


def goes_down(lab: Pystack, node: str) -> str:
    """What the command of the unit says, which otherwise first asks systemd whether the machine goes down."""
    root = f"PYSTACK_ROOT=/var/lib/pystack-lab/{lab.lab}/{node}"
    return lab.on(node, "env", root, sys.executable, "-m", "agent.shutdown", "--within", "50", "--anyhow")


def test_a_machine_that_goes_down_is_emptied_and_has_tasks_again_when_it_is_back(lab: Pystack, stack: Stack) -> None:
    stack.up((GLOBAL % "node.hostname != n9") + "  web: {image: busybox, command: sleep 10000, deploy: {replicas: 2}}\n")
    assert {node for node, _ in nodes_of(stack)} == {"n1", "n2"}
    # the command of the unit, which asks systemd first whether the machine goes down
    said = goes_down(lab, "n2")
    assert said == "the node is empty\n"
    assert {node for node, _ in nodes_of(stack)} == {"n1"}
    lab("lab", "fault", "--name", lab.lab, "crash", "n2")
    lab("lab", "fault", "--name", lab.lab, "boot", "n2")
    eventually(lambda: _check(("n2", "running") in nodes_of(stack)), 60)
    rows = {row["name"]: row for row in json.loads(lab("node", "ls", "--format", "json").stdout)}
    assert rows["n2"]["availability"] == "active"


def test_a_machine_that_goes_down_though_nobody_can_take_its_tasks_is_not_kept(lab: Pystack, stack: Stack) -> None:
    lab("node", "drain", "n1")
    try:
        stack.up("services: {web: {image: busybox, command: sleep 10000, stop_signal: SIGKILL}}")
        said = goes_down(lab, "n2")
        assert said == "the node is empty\n"  # of what can run elsewhere
        assert nodes_of(stack) == [("n2", "running")]
    finally:
        lab("node", "activate", "n1")
        lab("node", "activate", "n2")
