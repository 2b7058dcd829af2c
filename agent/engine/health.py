"""Healthchecks: run the test inside the container on its interval, and keep the verdict."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from agent.containers.runtime import Runtime, exec_failure
from agent.contract.container import Container, Healthcheck
from agent.contract.times import timestamp
from agent.engine.records import Record
from agent.images.types import RunConfig

LOG_ENTRIES = 5
OUTPUT_LIMIT = 4096
LISTEN_S = 5.0
"""How long a start is looked at closely; a program that does not listen by then is looked at every second."""
LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""
NANOSECONDS = 1e9
"""In a second: the unit of durations in image configurations."""
OFF = "NONE"
Probe = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""Runs a command in the container, for at most so many seconds; returns its exit status and output."""


def effective(container: Container, image: RunConfig) -> Healthcheck | None:
    """The container's own check, or the image's; None if there is none or it is switched off."""
    own = container.healthcheck
    theirs = image.healthcheck
    if own is not None and own.test:
        return None if own.test[0] == OFF else own
    if theirs is None or not theirs.test or theirs.test[0] == OFF:
        return None
    if own is not None:
        return msgspec.structs.replace(own, test=theirs.test)
    return Healthcheck(
        test=theirs.test,
        interval_s=theirs.interval / NANOSECONDS or 30.0,
        timeout_s=theirs.timeout / NANOSECONDS or 30.0,
        retries=theirs.retries or 3,
        start_period_s=theirs.start_period / NANOSECONDS,
        start_interval_s=theirs.start_interval / NANOSECONDS or 5.0,
    )


def verdict(health: str, *, ok: bool, streak: int, retries: int, in_start_period: bool) -> tuple[str, int]:
    """(health, failing streak) after one more result. A failure in the start period counts for nothing."""
    if ok:
        return "healthy", 0
    if in_start_period and health != "healthy":
        return health, 0
    streak += 1
    return ("unhealthy" if streak >= retries else health), streak


async def watch(record: Record, check: Healthcheck, probe: Probe, report: Callable[[str], None]) -> None:
    """Test until cancelled, keep the last results in *record*, and call *report* with its health when that changes. The first
    test comes after one interval, or one start_interval in the start period."""
    command = ["/bin/sh", "-c", check.test[1]] if check.test[0] == "CMD-SHELL" else list(check.test[1:])
    begun = time.monotonic()
    record.failing_streak = 0
    while True:
        early = time.monotonic() - begun < check.start_period_s and record.health != "healthy"
        await asyncio.sleep(min(check.start_interval_s, check.interval_s) if early else check.interval_s)
        if record.state != "running":
            continue
        started = timestamp()
        code, output = await probe(command, check.timeout_s)
        in_start_period = time.monotonic() - begun < check.start_period_s
        health, streak = verdict(
            record.health,
            ok=code == 0,
            streak=record.failing_streak,
            retries=check.retries,
            in_start_period=in_start_period,
        )
        record.failing_streak = streak
        entry: dict[str, object] = {"Start": started, "End": timestamp(), "ExitCode": code, "Output": output}
        record.health_log = [*record.health_log[1 - LOG_ENTRIES :], entry]
        if health != record.health and record.state == "running":
            report(health)


async def wait_until_listening(record: Record) -> None:
    """Readiness of a container without a health check: return when its program listens at all its TCP ports, or has ended.
    Until then other replicas take the connections, which this one would refuse."""
    process, close, pause = record.process, time.monotonic() + LISTEN_S, 0.01
    while process and process.alive() and not tcp_targets(record) <= listening(process.pid):
        await asyncio.sleep(pause)
        pause = min(0.2, pause * 1.5) if time.monotonic() < close else 1.0


def tcp_targets(record: Record) -> set[int]:
    """The TCP ports at which *record* is to listen if it takes connections; empty if that is not known."""
    if not record.task or not record.endpoints:
        return set()
    return {p.target for p in record.container.ports if p.protocol == "tcp"}


def listening(pid: int) -> set[int]:
    """The TCP ports at which a program listens in the network namespace of *pid*. Source: proc(5), /proc/net/tcp."""
    out = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        fields = (line.split() for line in lines)
        out |= {int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == LISTEN}
    return out


async def run_probe(runtime: Runtime, ident: str, bundle: Path, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Exit status and output of *command* inside the container *ident*; -1 where it took too long or could not be run."""
    complaints = os.memfd_create("complaints")
    try:
        code, output = await runtime.output_of(ident, bundle, command, timeout_s, complaints=complaints)
        if code and (message := os.pread(complaints, OUTPUT_LIMIT, 0)):
            return -1, exec_failure(message.decode(errors="replace"), command[0])[:OUTPUT_LIMIT]
    except TimeoutError:
        return -1, f"Health check exceeded timeout ({timeout_s:g}s)"
    finally:
        os.close(complaints)
    return code, output[:OUTPUT_LIMIT].decode(errors="replace")
