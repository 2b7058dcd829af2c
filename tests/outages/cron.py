"""How late many schedules of one minute begin, as their containers say it themselves."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import Stack

PERIOD_S = 120.0
LOOK_S = 15.0


class Lateness(NamedTuple):
    """*late_s* of each run, from the time of its schedule to the first instruction of its container; *missing* runs did not
    succeed in time."""

    late_s: list[float]
    missing: int


def file_of(count: int) -> str:
    """*count* services that run each second minute and say how long the machine has been up."""
    one = '  t{n}: {{image: busybox, command: cat /proc/uptime, network_mode: none, x-schedule: "*/2 * * * *"}}'
    return "\n".join(["services:", *(one.format(n=n) for n in range(count))]) + "\n"


def measured(stack: Stack, count: int, rounds: int) -> Lateness:
    """The runs of *count* schedules at *rounds* times."""
    boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    stack.up(file_of(count))
    end = time.monotonic() + (rounds + 1) * PERIOD_S
    done: list[dict[str, Any]] = []
    while len(done) < count * rounds and time.monotonic() < end:
        time.sleep(LOOK_S)  # to ask is work for the server: not in the midst of its runs
        rows = stack.pystack.json("cron", "history", "-p", stack.name, "--output", "--format", "json")
        done = [r for r in rows if r["state"] == "succeeded"]
    late = [
        boot + float(task["output"][0].split()[0]) - datetime.datetime.fromisoformat(run["scheduled"]).timestamp()
        for run in done
        for task in run["tasks"]
        if task["output"]
    ]
    return Lateness(sorted(late), count * rounds - len(late))
