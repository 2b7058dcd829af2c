"""Changes of one stack that come while another is under way, in virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from orchestrator.server.records import UpOptions
from tests.simulator import scenario
from tests.simulator.scenario import stack_of


class _Turns(scenario.Run):
    async def go(self) -> float:
        """A redeployment holds the stack, an `up` waits for it, and another redeployment for that."""
        _, plane = await self.begun()
        first, second = (stack_of("s0", version, random.Random(1)) for version in (1, 2))
        assert not await plane.rollouts.up(first, UpOptions(), lambda event: None)
        waiting = [
            asyncio.create_task(work)
            for work in (
                plane.rollouts.redeploy("s0", lambda event: None),
                plane.rollouts.up(second, UpOptions(), lambda event: None),
                plane.rollouts.redeploy("s0", lambda event: None),
            )
        ]
        await asyncio.gather(*waiting)
        if plane.state.get_stack("s0").stack.services != second.services:
            self.world.violate("the second redeployment brought up what was there when it began to wait")
        return 0.0


def test_a_redeployment_that_waited_undoes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "Run", _Turns)
    assert scenario.run(1, tmp_path).violations == []
