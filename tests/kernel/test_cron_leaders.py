"""Schedules while servers that lead are killed: each time has one run, none is lost and none is doubled."""

from __future__ import annotations

import datetime
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

COUNT, LOSSES = int(os.environ.get("PYSTACK_SCHEDULES", "20")), int(os.environ.get("PYSTACK_LEADERS", "3"))
"""So many schedules, and so many leaders that are killed: `PYSTACK_SCHEDULES=100 PYSTACK_LEADERS=10` is the test in full."""
EVERY_S = 20 if COUNT <= 20 else 60


def file_of(count: int) -> str:
    """*count* schedules of EVERY_S whose seconds differ: some are due whenever a leader goes."""
    schedule = 'x-schedule: {{cron: "{second}{step} * * * * *", concurrency: allow, history: 500}}'
    one = f'  t{{n}}: {{{{image: busybox, command: "true", network_mode: none, {schedule}}}}}'
    step = f"/{EVERY_S}" if EVERY_S < 60 else ""
    return "\n".join(["services:", *(one.format(n=n, second=n * EVERY_S // count, step=step) for n in range(count))]) + "\n"


def runs(lab: Pystack, stack: str) -> list[dict[str, Any]]:
    done = lab("cron", "history", "-p", stack, "--format", "json", check=False)
    assert done.returncode == 0  # while no server leads there is no answer
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_each_time_has_one_run_whoever_leads(tmp_path: Path) -> None:
    with cluster_of(3, servers=3) as lab:
        stack = Stack(lab, tmp_path)
        stack.up(file_of(COUNT))

        def more(count: int) -> None:
            assert sum(r["state"] == "succeeded" for r in runs(lab, stack.name)) > count

        eventually(lambda: more(2), 120)
        for number in range(LOSSES):
            before = sum(r["state"] == "succeeded" for r in runs(lab, stack.name))
            lab("lab", "fault", "--name", lab.lab, "kill", "leader")
            # the next one goes while many runs are open, and after each of the schedules had its turn
            eventually(partial(more, before + (COUNT if number % 2 else 3)), 4 * EVERY_S)
        found = eventually(lambda: runs(lab, stack.name), 60)
        now = time.time()
    assert {r["state"] for r in found} <= {"succeeded", "running", "pending"}
    for name in (f"t{n}" for n in range(COUNT)):
        times = sorted(datetime.datetime.fromisoformat(r["scheduled"]).timestamp() for r in found if r["service"] == name)
        assert times == [times[0] + EVERY_S * n for n in range(len(times))], name  # none is missing, none is there twice
        assert times[-1] > now - EVERY_S - 30 * PATIENCE, name
