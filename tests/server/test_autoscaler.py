"""The loop that scales, on a simulated cluster: what fails for one figure or one service leaves the others alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bench.simulated import run, stack
from orchestrator.errors import PystackError
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.server.traffic import RequestListener
from orchestrator.stackfile.workloads import Scale
from tests.simulator.world import World

TURNS_S = 40
"""Two turns, and the third not yet."""


class Proxies:
    """What sees requests: it fails with *error*, unless that is None."""

    blind = ""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.began = error, 0

    @contextlib.asynccontextmanager
    async def observe(self, listener: RequestListener) -> AsyncIterator[None]:
        """Count how often it was asked for."""
        self.began += 1
        if self.error:
            raise self.error
        yield
        listener("a-s0-1", False, 0.1)


@pytest.mark.parametrize("error", [PystackError("no proxy answers"), RuntimeError("not foreseen")])
def test_requests_that_cannot_be_counted_end_no_scaling(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    proxies = Proxies(error)

    async def work(world: World, plane: ControlPlane) -> tuple[int, str]:
        plane.autoscaler.figures.requests = proxies
        made = stack(services=2, replicas=1, version=1)
        scaled = tuple(msgspec.structs.replace(s, scale=Scale(least=1, most=3, rps=10.0)) for s in made.services)
        async with asyncio.timeout(600):
            await plane.rollouts.up(msgspec.structs.replace(made, services=scaled), UpOptions(), lambda event: None)
        await asyncio.sleep(TURNS_S)
        failed = proxies.began
        proxies.error = None
        await asyncio.sleep(TURNS_S)
        assert set(plane.autoscaler.memories) == {("a", "s0"), ("a", "s1")}
        return failed, plane.autoscaler.memories["a", "s0"].reason

    failed, reason = run(tmp_path, 2, work)
    assert failed >= 2, "a turn came after the one that failed"
    assert proxies.began == failed + 1, "what works is asked for once, and goes on"
    assert str(error) in caplog.text
    assert "rps" in reason
