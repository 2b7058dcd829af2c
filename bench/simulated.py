"""A control plane and a stack on the simulator's cluster (`tests/simulator`): virtual time, nodes without containers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from agent.contract.container import Attachment, Container
from orchestrator.server.plane import ControlPlane
from orchestrator.stackfile.model import Service, Stack, StackNetwork, UpdateConfig
from tests.simulator.clock import VirtualLoop
from tests.simulator.world import World, simulated

T = TypeVar("T")


def stack(services: int, replicas: int, version: int) -> Stack:
    """*services* of *replicas* each on one network; *version* is the image of the first."""

    def service(number: int) -> Service:
        image = f"s{number}:{version if number == 0 else 1}"
        container = Container(
            image=image, restart="always", stop_signal="SIGKILL", attachments=(Attachment(network="a_default"),)
        )
        return Service(
            name=f"s{number}", container=container, where="f:1", replicas=replicas, update=UpdateConfig(order="start-first")
        )

    return Stack(
        name="a", networks=(StackNetwork(key="default", name="a_default"),), services=tuple(service(n) for n in range(services))
    )


def run(folder: Path, nodes: int, work: Callable[[World, ControlPlane], Coroutine[Any, Any, T]]) -> T:
    """What *work* returns, on a cluster of *nodes* after a server leads it and knows them all. One seed."""
    random.seed(1)
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = World(loop, 1, folder, nodes)
    try:
        with simulated(world):
            return loop.run_until_complete(_led(world, work))
    finally:
        with simulated(world):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(100))
        loop.close()
        asyncio.set_event_loop(None)


async def _led(world: World, work: Callable[[World, ControlPlane], Coroutine[Any, Any, T]]) -> T:
    for name in world.nodes:
        world.power_on(name)
    async with asyncio.timeout(600):
        while not any(plane.loaded for plane in world.leading.values()):
            await asyncio.sleep(1)
    await asyncio.sleep(5)
    (plane,) = world.leading.values()
    return await work(world, plane)
