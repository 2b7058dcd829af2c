"""10,000 hours of 200 schedules in virtual time, with leaders that fail and clocks that step: each time runs exactly once."""

from __future__ import annotations

import random
import time

from bench.rows import Row, row, size
from orchestrator.planning.schedules import LATE_S, ScheduleState, decide, next_time
from orchestrator.stackfile.workloads import Schedule

HOURS, SCHEDULES = size(10_000, 200), size(200, 20)
BEGIN = 1_772_000_000.0  # 25 February 2026: both changes of daylight saving of 2026 lie within 10,000 hours
LINES = (
    "30 2 * * *",
    "0 1 * * *",
    "0 0 * * mon",
    "15 1-3 * * *",
    "0 4 1 * *",
    "59 23 * * *",
    "@daily",
    "0 */3 * * *",
    "0 * * * *",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


def _live(schedule: Schedule, rnd: random.Random) -> int:
    """How often *schedule* ran. Raises RuntimeError where a time was run twice, or was lost."""
    state, now, skew, end = ScheduleState(last=BEGIN), BEGIN, 0.0, BEGIN + HOURS * 3600
    runs: dict[float, str] = {}
    while (at := next_time(schedule, state.last)) is not None and at < end:
        now = max(now, at - skew) + (rnd.uniform(0, LATE_S / 3) if rnd.random() < 0.1 else 0.0)
        if rnd.random() < 0.01:
            skew = rnd.uniform(-LATE_S / 4, LATE_S / 4)
        found = decide(schedule, state, now + skew, active=False)
        if rnd.random() < 0.05:
            now += rnd.uniform(0, 10)  # the leader fails before it has written: another one looks
            continue
        for due in found.due:
            if due.at in runs or due.state != "pending":
                raise RuntimeError(f"{schedule.cron} at {due.at:.0f}: {runs.get(due.at, '')} {due.state}")
            runs[due.at] = due.state
        state = found.state
    at, count = next_time(schedule, BEGIN), 0
    while at is not None and at <= state.last:
        if at not in runs:
            raise RuntimeError(f"{schedule.cron} at {at:.0f} was lost")
        at, count = next_time(schedule, at), count + 1
    return count


def measure() -> dict[str, Row]:
    """Runs a second of one core, every one of them checked, beside what they need that fire each minute."""
    rnd, began, runs = random.Random(1), time.perf_counter(), 0
    for number in range(SCHEDULES):
        schedule = Schedule(cron=LINES[number % len(LINES)], timezone=ZONES[number % len(ZONES)], concurrency="allow")
        runs += _live(schedule, rnd)
    rate = runs / (time.perf_counter() - began)
    return {f"schedules_{SCHEDULES}_for_{HOURS}_hours": row(rate, SCHEDULES / 60, "runs/s", better="higher")}
