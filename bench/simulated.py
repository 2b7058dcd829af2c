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
from tests.simulator.world import World, end, simulated

T = TypeVar("T")


def stack(services: int, replicas: int, version: int, per_network: int = 0) -> Stack:
    """*services* of *replicas* each; *version* is the image of the first. They are on one network, or so many on each."""

    def network(number: int) -> str:
        return f"net{number // per_network if per_network else 0}"

    def service(number: int) -> Service:
        image = f"s{number}:{version if number == 0 else 1}"
        on = (Attachment(network=f"a_{network(number)}"),)
        container = Container(image=image, restart="always", stop_signal="SIGKILL", attachments=on)
        return Service(
            name=f"s{number}", container=container, where="f:1", replicas=replicas, update=UpdateConfig(order="start-first")
        )

    keys = dict.fromkeys(map(network, range(services)))
    return Stack(
        name="a",
        networks=tuple(StackNetwork(key=key, name=f"a_{key}") for key in keys),
        services=tuple(map(service, range(services))),
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
        end(loop, world)


async def _led(world: World, work: Callable[[World, ControlPlane], Coroutine[Any, Any, T]]) -> T:
    for name in world.nodes:
        world.power_on(name)
    async with asyncio.timeout(600):
        while not any(plane.loaded for plane in world.leading.values()):
            await asyncio.sleep(1)
    await asyncio.sleep(5)
    (plane,) = world.leading.values()
    return await work(world, plane)
