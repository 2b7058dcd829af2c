"""Schedules while servers that lead are killed: each time has one run, none is lost and none is doubled."""

from __future__ import annotations

import datetime
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

CRON = """
services:
  tick:
    image: busybox
    command: "true"
    x-schedule: {cron: "*/4 * * * * *", concurrency: allow, history: 500}
"""
EVERY_S = 4


def runs(lab: Pystack, stack: str) -> list[dict[str, Any]]:
    done = lab("cron", "history", "-p", stack, "--format", "json", check=False)
    assert done.returncode == 0  # while no server leads there is no answer
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [r for r in found if r["state"] == "succeeded"]


@pytest.mark.slow
def test_each_time_has_one_run_whoever_leads(tmp_path: Path) -> None:
    with cluster_of(3, servers=3) as lab:
        stack = Stack(lab, tmp_path)
        stack.up(CRON)

        def more(count: int) -> None:
            assert len(runs(lab, stack.name)) > count

        eventually(lambda: more(2), 60)
        for _ in range(3):
            before = len(runs(lab, stack.name))
            lab("lab", "fault", "--name", lab.lab, "kill", "leader")
            eventually(partial(more, before + 2), 90)
        lab("cron", "pause", "-p", stack.name, "tick")
        found = lab.json("cron", "history", "-p", stack.name, "--format", "json")
        assert {r["state"] for r in found} <= {"succeeded", "running", "pending"}
        times = [datetime.datetime.fromisoformat(r["scheduled"]).timestamp() for r in found]
        assert times == [times[0] + EVERY_S * n for n in range(len(times))]  # none is missing, none is there twice
