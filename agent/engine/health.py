"""Healthchecks: run the test inside the container on its interval, and keep the verdict."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agent.engine.records import Record, now

if TYPE_CHECKING:
    from agent.engine.engine import Engine

LOG_ENTRIES = 5
OUTPUT_LIMIT = 4096


def verdict(health: str, *, ok: bool, streak: int, retries: int, in_start_period: bool) -> tuple[str, int]:
    """(health, failing streak) after one more result. A failure in the start period counts for nothing."""
    if ok:
        return "healthy", 0
    if in_start_period and health != "healthy":
        return health, 0
    streak += 1
    return ("unhealthy" if streak >= retries else health), streak


async def watch(engine: Engine, record: Record, check: object) -> None:
    """Test until cancelled. The first test comes after one interval, or one start_interval in the start period."""
    from agent.manifest import Healthcheck

    assert isinstance(check, Healthcheck)
    test = list(check.test)
    command = ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
    begun = time.monotonic()
    record.failing_streak = 0
    while True:
        early = time.monotonic() - begun < check.start_period_s and record.health != "healthy"
        await asyncio.sleep(min(check.start_interval_s, check.interval_s) if early else check.interval_s)
        if record.state != "running":
            continue
        started = now()
        code, output = await run(engine, record, command, check.timeout_s)
        in_start_period = time.monotonic() - begun < check.start_period_s
        health, streak = verdict(
            record.health, ok=code == 0, streak=record.failing_streak, retries=check.retries,
            in_start_period=in_start_period,
        )
        record.failing_streak = streak
        entry: dict[str, object] = {"Start": started, "End": now(), "ExitCode": code, "Output": output}
        record.health_log = [*record.health_log[1 - LOG_ENTRIES :], entry]
        if health != record.health and record.state == "running":
            engine._set(record, f"health_status: {health}", health=health)


async def run(engine: Engine, record: Record, command: list[str], timeout_s: float) -> tuple[int, str]:
    """Exit status and output of *command* inside the container; -1 where it took too long."""
    try:
        code, output = await engine.runtime.output_of(record.id, engine.bundle(record), command, timeout_s)
    except TimeoutError:
        return -1, f"the check took longer than {timeout_s:g} s"
    return code, output[:OUTPUT_LIMIT].decode(errors="replace")
