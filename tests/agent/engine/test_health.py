"""Health checks: which one a container has, and what its results come to."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

import pytest

from agent.containers.runtime import Process
from agent.contract.container import Container, Healthcheck, Port
from agent.contract.processes import start_time
from agent.engine import health
from agent.engine.records import Endpoint, Record
from agent.images.types import HealthConfig, RunConfig

IMAGE = RunConfig(healthcheck=HealthConfig(test=("CMD", "image"), interval=5_000_000_000, retries=2))
OWN = Healthcheck(test=("CMD", "own"), interval_s=1.0)
FROM_IMAGE = Healthcheck(test=("CMD", "image"), interval_s=5.0, retries=2)
EFFECTIVE = {
    "none": (None, RunConfig(), None),
    "the image's, whose durations are nanoseconds": (None, IMAGE, FROM_IMAGE),
    "its own": (OWN, IMAGE, OWN),
    "switched off": (Healthcheck(test=("NONE",)), IMAGE, None),
    "the image's test at an interval of its own": (
        Healthcheck(interval_s=1.0),
        IMAGE,
        Healthcheck(test=("CMD", "image"), interval_s=1.0),
    ),
    "an interval, and nothing to test": (Healthcheck(interval_s=1.0), RunConfig(), None),
}


@pytest.mark.parametrize(("own", "image", "expected"), EFFECTIVE.values(), ids=EFFECTIVE)
def test_the_effective_check(own: Healthcheck | None, image: RunConfig, expected: Healthcheck | None) -> None:
    assert health.effective(Container(image="x", healthcheck=own), image) == expected


VERDICTS = {
    "a success makes healthy": ("starting", True, 2, False, ("healthy", 0)),
    "a failure in the start period counts for nothing": ("starting", False, 0, True, ("starting", 0)),
    "one in the start period of a healthy one counts": ("healthy", False, 0, True, ("healthy", 1)),
    "a failure counts": ("healthy", False, 1, False, ("healthy", 2)),
    "enough of them make unhealthy": ("healthy", False, 2, False, ("unhealthy", 3)),
    "a success ends the streak": ("unhealthy", True, 9, False, ("healthy", 0)),
}


@pytest.mark.parametrize(("before", "ok", "streak", "early", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(before: str, ok: bool, streak: int, early: bool, expected: tuple[str, int]) -> None:
    assert health.verdict(before, ok=ok, streak=streak, retries=3, in_start_period=early) == expected


def record(**fields: object) -> Record:
    made = Record(id="c", name="c", container=Container(image="x"), created="", state="running", health="starting")
    for key, value in fields.items():
        setattr(made, key, value)
    return made


async def test_a_change_of_health_is_reported_once_and_the_last_results_are_kept() -> None:
    codes, commands, reports = [1, 1, 1, 0, 0, 0, 0], list[Sequence[str]](), list[str]()
    done = asyncio.Event()
    watched = record()

    async def probe(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        commands.append(command)
        assert timeout_s == 2.0
        if not codes:
            done.set()
            await asyncio.Event().wait()
        return codes.pop(0), "said"

    def report(state: str) -> None:
        watched.health = state
        reports.append(state)

    check = Healthcheck(test=("CMD-SHELL", "test -e /ok"), interval_s=0.001, timeout_s=2.0, retries=2)
    task = asyncio.create_task(health.watch(watched, check, probe, report))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    assert commands[0] == ["/bin/sh", "-c", "test -e /ok"]
    assert reports == ["unhealthy", "healthy"]
    assert [entry["ExitCode"] for entry in watched.health_log] == [1, 0, 0, 0, 0]


async def test_a_program_is_ready_when_it_listens_at_its_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in health.listening(os.getpid())
        ready = record(
            task="s-web-1",
            endpoints=[Endpoint(network="n")],
            container=Container(image="x", ports=(Port(target=port), Port(target=1, protocol="udp"))),
            process=Process(os.getpid(), start_time(os.getpid())),
        )
        assert health.tcp_targets(ready) == {port}
        async with asyncio.timeout(60):
            await health.wait_until_listening(ready)
    assert health.tcp_targets(record()) == set()  # made by hand: what it is to do is not known
