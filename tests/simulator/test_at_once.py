"""Stacks that are brought up at the same moment take nothing from each other."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from orchestrator.server.records import UpOptions
from tests.simulator.clock import VirtualLoop
from tests.simulator.scenario import Run, stack_of
from tests.simulator.world import end, simulated


def test_stacks_that_come_at_once_share_no_subnet_and_no_room(tmp_path: Path) -> None:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    run = Run(3, tmp_path, loop)

    async def go() -> None:
        _, plane = await run.begun()
        stacks = [stack_of(f"s{n}", 1, random.Random(n), tight=True) for n in range(3)]
        ups = (plane.rollouts.up(s, UpOptions(timeout_s=40), lambda event: None) for s in stacks)
        outcomes = await asyncio.gather(*ups, return_exceptions=True)
        assert [] in outcomes
        run.nothing_shared(plane)
        run.crowded(plane)

    try:
        with simulated(run.world):
            loop.run_until_complete(go())
    finally:
        end(loop, run.world)
    assert run.world.violations == []
