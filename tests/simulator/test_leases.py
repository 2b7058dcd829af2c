"""Strict tasks of a node to which messages got lost, though its own came through, in virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from agent.contract.task import LEASE_S
from orchestrator.server.records import UpOptions
from tests.simulator import scenario
from tests.simulator.scenario import stack_of


class _Deaf(scenario.Run):
    async def go(self) -> float:
        """Nothing of the leader arrives at a node for longer than its lease. Afterwards it runs what it ran before."""
        server, plane = await self.begun()
        for name in ("s0", "s1", "s2"):
            assert not await plane.rollouts.up(stack_of(name, 1, random.Random(1)), UpOptions(), lambda event: None)
        strict = next(t for t in plane.state.tasks.values() if t.strict and t.node != server)
        node = self.world.nodes[strict.node]
        self.world.one_way.add((server, node.name))
        await asyncio.sleep(LEASE_S * 2)
        if node.containers[strict.name].state == "running":
            self.world.violate("it runs without a lease")
        self.world.one_way.clear()
        await asyncio.sleep(LEASE_S)
        if node.containers[strict.name].state != "running":
            self.world.violate(f"it is {node.containers[strict.name].state}")
        return 0.0


def test_a_node_that_hears_again_starts_what_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "Run", _Deaf)
    assert scenario.run(1, tmp_path).violations == []
