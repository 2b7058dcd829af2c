"""An agent that can open no file for a while: what ends then is seen afterwards, and can be started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Pystack, Stack, eventually

FILE = """
services:
  a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, deploy: {replicas: 3}}
"""


@contextmanager
def without_descriptors(lab: Pystack) -> Iterator[None]:
    root = f"/var/lib/pystack-lab/{lab.lab}/n1"
    limit = f"prlimit --pid $(cat {root}/run/server.pid) --nofile="
    lab.on("n1", "sh", "-c", f"{limit}10:")
    try:
        yield
    finally:
        lab.on("n1", "sh", "-c", f"{limit}$(prlimit --pid $(cat {root}/run/server.pid) --nofile --output HARD --noheadings):")


def test_the_end_of_containers_is_seen_afterwards(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    before = {name: row["started"] for name, row in stack.ps().items()}
    with without_descriptors(lab):
        lab.on("n1", "pkill", "-KILL", "-f", "^sleep 10000")
        time.sleep(4)  # the agent tries in vain meanwhile

    def seen() -> None:
        assert not {row["started"] for row in stack.ps().values() if row["state"] != "failed"} & set(before.values())

    def again() -> None:
        rows = stack.ps()
        assert {row["state"] for row in rows.values()} == {"running"}
        assert not {row["started"] for row in rows.values()} & set(before.values())

    eventually(seen, 30)  # a start that failed meanwhile is not repeated by itself
    stack.run("restart")
    eventually(again, 30)


def test_what_the_runtime_still_has_of_one_that_ended_is_in_nobodys_way(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    stack.run("stop")
    containers = stack.run("ps", "-q").stdout.split()
    assert len(containers) == 3
    for container in containers:
        state = Path(f"/var/lib/pystack-lab/{lab.lab}/n1/run/runc/{container}")
        assert not state.exists()
        state.mkdir()
    stack.run("start")
    assert {row["state"] for row in stack.ps().values()} == {"running"}
