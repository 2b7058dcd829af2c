"""An agent that stood still, and clocks that are set: neither is a reason to touch a container."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
    healthcheck: {test: wget -qO- 127.0.0.1, interval: 0.3s, timeout: 2s, retries: 3}
    ports: ["18081:80"]
    stop_signal: SIGKILL
  count:
    image: busybox
    command: sh -c 'i=0; while :; do echo line-$$i; i=$$((i+1)); sleep 0.05; done'
    stop_signal: SIGKILL
  mortal:
    image: busybox
    command: sh -c "echo born; until test -e /die; do sleep 0.1; done; rm /die; exit 3"
    restart: always
    stop_signal: SIGKILL
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(1) as pystack:
        yield pystack


def fault(lab: Pystack, *words: str) -> None:
    lab("lab", "fault", "--name", lab.lab, *words)


def whole(stack: Stack, before: dict[str, object]) -> None:
    """Every container is the one it was, runs and is well; the one that was let die was started once more."""
    rows = stack.ps()
    assert {name: row["id"] for name, row in rows.items()} == before
    assert {row["state"] for row in rows.values()} == {"running"}
    assert rows["web-1"]["health"] == "healthy"
    assert stack.run("logs", "--no-log-prefix", "mortal").stdout.split() == ["born", "born"]


def test_an_agent_that_stood_still_goes_on_where_it_was(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE, "--wait")
    before = {name: row["id"] for name, row in stack.ps().items()}
    stack.exec("mortal", "true")
    pid = lab.on("n1", "pgrep", "-of", "until test").strip()
    count = lab.on("n1", "pgrep", "-of", "line-").strip()
    fault(lab, "pause", "n1", "server")
    try:
        # names, published ports and logs need nobody who stands still
        inside = ("nsenter", "-t", count, "-n", "-m", "--", "/bin/busybox", "wget", "-qO-", "http://web/")
        assert lab.on("n1", *inside) == "page\n"
        assert lab.on("outside", "busybox", "wget", "-qO-", "http://10.99.0.1:18081/") == "page\n"
        lab.on("n1", "nsenter", "-t", pid, "-m", "--", "/bin/busybox", "touch", "/die")

        def died() -> None:
            assert not lab.on("n1", "pgrep", "-of", "until test", check=False)

        eventually(died, 10)
        time.sleep(3)  # ten intervals of the healthcheck, in which nobody checks
    finally:
        fault(lab, "resume", "n1", "server")

    eventually(lambda: whole(stack, before), 15)
    lines = stack.run("logs", "--no-log-prefix", "count").stdout.split()
    assert lines == [f"line-{n}" for n in range(len(lines))]
    assert len(lines) > 60


@pytest.mark.skipif("PYSTACK_TEST_CLOCK" not in os.environ, reason="it sets the machine's clock: tests/vm/run does")
@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_clock_that_is_set_changes_nothing(lab: Pystack, stack: Stack, jump_s: int) -> None:
    stack.up(FILE, "--wait")
    before = {name: row["id"] for name, row in stack.ps().items()}
    time.clock_settime(time.CLOCK_REALTIME, time.time() + jump_s)
    try:
        stack.exec("mortal", "touch", "/die")
        eventually(lambda: whole(stack, before), 15)
        stack.up(FILE.replace("echo page", "echo other").replace("18081", "18082"), "--wait")
        assert lab.on("outside", "busybox", "wget", "-qO-", "http://10.99.0.1:18082/") == "other\n"
        lines = stack.run("logs", "--no-log-prefix", "count").stdout.split()
        assert lines == [f"line-{n}" for n in range(len(lines))]
        recent = stack.run("logs", "--no-log-prefix", "--since", "2s", "count").stdout.split()
        assert recent
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - jump_s)
