"""What other nodes know of tasks that have ended, and in how many messages they get to know it, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.simulated import run, stack
from orchestrator.server import dispatcher
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from tests.simulator.world import World

HOSTS = 5


def test_the_addresses_of_what_ended_go_soon_in_few_messages(tmp_path: Path) -> None:
    async def work(world: World, plane: ControlPlane) -> None:
        await plane.rollouts.up(stack(2, 40, 1), UpOptions(), lambda event: None)
        await asyncio.sleep(60)  # nothing else is on its way
        leaving = [t.name for t in plane.state.tasks.values() if t.service == "s1"]
        gone = {a.ipv4 for n in leaving for a in plane.state.tasks[n].container.attachments}
        before = world.messages
        await plane.dispatcher.remove_tasks(leaving)
        await plane.dispatcher.wait_removed(leaving)
        await asyncio.sleep(dispatcher.FORGET_S * 2)
        # no more connections, the removal, and what ended in each of two seconds
        assert world.messages - before <= HOSTS * 5, "a message for each task that ended"
        for node in world.nodes.values():
            known = {endpoint.ipv4 for endpoint in node.manifest.remote_endpoints}
            assert known, "they are on one network"
            assert not known & gone, f"{node.name} knows addresses of tasks that are gone"

    run(tmp_path, HOSTS, work)
