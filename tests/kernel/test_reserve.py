"""`reserve` in config.yml: a container that fills the disk is evicted, and none takes the node's memory."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import cgroups
from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = [pytest.mark.kernel, pytest.mark.long]
FILE = """
services:
  still: {image: busybox, command: sleep 1000, stop_grace_period: 0s}
  writer:
    image: busybox
    restart: always
    stop_grace_period: 0s
    command: sh -c 'sleep 3; while :; do dd if=/dev/zero bs=1M count=4 2>/dev/null >> /srv/fill; sleep 0.3; done'
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(1, disk="256m") as pystack:
        (Path(pystack.environment["PYSTACK_ROOT"]) / "config.yml").write_text("reserve: {disk: 60%, memory: 512m}\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")

        def back() -> None:
            done = pystack("node", "ls", "--format", "json", check=False)
            assert done.returncode == 0
            assert [row["state"] for row in json.loads(done.stdout)] == ["ready"]

        eventually(back, 20)
        yield pystack


def events(lab: Pystack) -> list[dict[str, str]]:
    """What the node's engine says has happened."""
    socket = lab.environment["PYSTACK_HOST"].removeprefix("unix://")
    url = f"http://x/v1/nodes/n1/engine/events?since=1&until={time.time()}"
    done = subprocess.run(["curl", "-sf", "--unix-socket", socket, url], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_containers_leave_memory_to_the_node(lab: Pystack) -> None:
    lab("container", "run", "-d", "--name", "kept", "busybox", "sleep", "1000")
    try:
        pid = json.loads(lab("container", "inspect", "kept").stdout)[0]["State"]["Pid"]
        lines = [line.split(":", 2) for line in lab.on("n1", "cat", f"/proc/{pid}/cgroup").splitlines()]
        group = next(path for _, controllers, path in lines if controllers in (["memory", ""][cgroups.unified()], "memory"))
        name = "memory.max" if cgroups.unified() else "memory.limit_in_bytes"
        limit = int(lab.on("n1", "cat", str(cgroups.directory("memory", group).parent / name)))
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert total - limit == 512 << 20
        assert json.loads(lab("node", "ls", "--format", "json").stdout)[0]["capacity"]["memory"] == limit
    finally:
        lab("container", "rm", "-f", "kept")


def test_the_writer_is_evicted_its_neighbour_is_not_and_it_comes_back_with_room(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)

    def evicted() -> None:
        assert any(event["Action"] == "evict" for event in events(lab))
        row = stack.ps()["writer-1"]
        assert row["state"] in ("failed", "restarting", "exited")
        assert "less left than its reserve of" in str(row["error"])

    eventually(evicted, 60)
    assert stack.ps()["still-1"]["restarts"] == 0
    assert "less left than its reserve" in lab("node", "ls", "--format", "json").stdout
    done = lab("container", "run", "--rm", "busybox", "true", check=False)
    assert done.returncode != 0
    assert "reserve" in done.stderr
    stack.exec("still", "true")
    stack.write(FILE + "  late: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n")
    assert "less left than its reserve" in stack.run("plan", check=False).stderr  # nothing more is placed there
    stack.write(FILE)
    stack.run("plan")  # what is there stays
