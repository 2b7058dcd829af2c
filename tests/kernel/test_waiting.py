"""An `up` that waits for ever holds up nobody: `down` and `stop` end it, others say what they wait for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

STUCK = """
services:
  web:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, "true"], interval: 1h}
    deploy: {placement: {constraints: [node.hostname == n1]}}
"""


@contextmanager
def begun(stack: Stack, lab: Pystack) -> Iterator[subprocess.Popen[str]]:
    """An `up` that waits for a healthcheck."""
    stack.write(STUCK)
    words = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:

        def waits() -> None:
            assert stack.ps().get("web-1", {}).get("health") == "starting"

        try:
            eventually(waits, 30)
            yield up
        finally:
            up.kill()


@pytest.mark.parametrize("verb", ["down", "stop"])
def test_an_up_that_waits_is_given_up_for(stack: Stack, lab: Pystack, verb: str) -> None:
    with begun(stack, lab) as up:
        done = stack.run(verb)
        assert f"is given up for this `{verb}`" in done.stderr
        said, _ = up.communicate(timeout=20)
        assert up.returncode == 1
        assert f"`{verb}` came meanwhile, so this `up` was given up" in said
    rows = stack.ps()
    assert rows == {} if verb == "down" else rows["web-1"]["state"] == "exited"


def test_a_verb_that_must_wait_says_for_whom(stack: Stack, lab: Pystack) -> None:
    words = [sys.executable, "-m", "orchestrator", "restart", "-p", stack.name]
    with begun(stack, lab), subprocess.Popen(words, env=lab.environment, stderr=subprocess.PIPE, text=True) as restart:
        assert restart.stderr
        assert "this `restart` waits for a `up` that began" in restart.stderr.readline()
        restart.kill()


@pytest.mark.long
def test_tasks_of_a_dead_node_are_moved_while_another_stack_waits(tmp_path: Path) -> None:
    with cluster_of(3) as lab:
        stuck, other = Stack(lab, tmp_path / "stuck"), Stack(lab, tmp_path / "other")
        stuck.name, other.name = "aaa", "bbb"  # the order in which stacks are looked after
        for one in (stuck, other):
            one.directory.mkdir()
        quiet = "{image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {replicas: 3}}"
        other.up(f"services: {{a: {quiet}}}")
        stuck.up(f"services: {{more: {quiet}}}")
        stuck.write(f"{STUCK}  more: {quiet}\n")
        words = [sys.executable, "-m", "orchestrator", "-f", str(stuck.file), "up", "-p", stuck.name]
        with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:

            def waits() -> None:
                assert stuck.ps().get("web-1", {}).get("health") == "starting"

            eventually(waits, 30)
            lab("lab", "fault", "--name", lab.lab, "crash", "n3")

            def moved() -> None:
                assert {row["node"] for row in other.ps().values()} == {"n1", "n2"}

            eventually(moved, 75)
            assert up.poll() is None
            up.kill()
