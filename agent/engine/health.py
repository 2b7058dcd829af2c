"""Healthchecks: run the test inside the container on its interval, and keep the verdict."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.containers.runtime import exec_failure
from agent.engine.records import Record, now

if TYPE_CHECKING:
    from agent.engine.engine import Engine

LOG_ENTRIES = 5
OUTPUT_LIMIT = 4096
LISTEN_S = 5.0
"""How long a start is looked at closely; a program that does not listen by then is looked at every second."""
LISTEN = "0A"


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
    from agent.contract.container import Healthcheck

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
            record.health,
            ok=code == 0,
            streak=record.failing_streak,
            retries=check.retries,
            in_start_period=in_start_period,
        )
        record.failing_streak = streak
        entry: dict[str, object] = {"Start": started, "End": now(), "ExitCode": code, "Output": output}
        record.health_log = [*record.health_log[1 - LOG_ENTRIES :], entry]
        if health != record.health and record.state == "running":
            engine.transition(record, f"health_status: {health}", health=health)


async def listen(engine: Engine, record: Record) -> None:
    """Until its program listens at all TCP ports that it has, *record* is one of the engine's `deaf`: who has no healthcheck
    can be asked that much, and connections that others can take are not refused meanwhile."""
    process, close, pause = record.process, time.monotonic() + LISTEN_S, 0.01
    while process and process.alive() and not tcp_targets(record) <= listening(process.pid):
        await asyncio.sleep(pause)
        pause = min(0.2, pause * 1.5) if time.monotonic() < close else 1.0
    engine.not_listening.discard(record.id)
    if record.process is process:
        engine.changed(record)


def tcp_targets(record: Record) -> set[int]:
    """The TCP ports at which *record* is to listen if it takes connections; none where nobody can tell."""
    if not record.task or not record.endpoints:
        return set()
    return {p.target for p in record.container.ports if p.protocol == "tcp"}


def listening(pid: int) -> set[int]:
    """The TCP ports at which somebody listens in the network namespace of *pid*. Source: proc(5), /proc/net/tcp."""
    out = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        fields = (line.split() for line in lines)
        out |= {int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == LISTEN}
    return out


async def run(engine: Engine, record: Record, command: list[str], timeout_s: float) -> tuple[int, str]:
    """Exit status and output of *command* inside the container; -1 where it took too long."""
    complaints = os.memfd_create("complaints")
    try:
        code, output = await engine.runtime.output_of(
            record.id, engine.bundle(record), command, timeout_s, complaints=complaints
        )
        if code and (said := os.pread(complaints, OUTPUT_LIMIT, 0)):
            return -1, exec_failure(said.decode(errors="replace"))[:OUTPUT_LIMIT]
    except TimeoutError:
        return -1, f"Health check exceeded timeout ({timeout_s:g}s)"
    finally:
        os.close(complaints)
    return code, output[:OUTPUT_LIMIT].decode(errors="replace")
