"""Containers that somebody runs by hand on a stack's networks (`pystack run`): what the cluster does for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.manifest import Container, Task
from orchestrator.errors import RefusedError, UnreachableError
from orchestrator.placement.assign import place_oneoff
from orchestrator.planning.expand import address_oneoff
from orchestrator.server import keys
from orchestrator.server.contents import with_digests
from orchestrator.store.interface import Op, Put

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller


async def invite(controller: Controller, name: str, service: str, guest: str, container: Container) -> Task:
    """Give a container that is run by hand a node and addresses on the stack's networks, and let its peers know.

    It is the caller's to make it there; `part` takes it all back. Raises RefusedError, ImpossibleError."""
    async with controller.lock(name):
        stack = controller.known(name).stack
        one = next((s for s in stack.services if s.name == service), None)
        if one is None:
            raise RefusedError(f"stack {name} has no service {service}", 404)
        if guest in controller.tasks:
            raise RefusedError(f"the name {guest} is in use: choose another with --name", 409)
        images = await controller.images.ids(stack)
        made = msgspec.structs.replace(container, image_id=images.get(container.image, ""),
                                       files=with_digests(container.files, stack.contents))
        draft = Task(name=guest, stack=name, service=service, container=made, desired="guest", where=one.where)
        ground = controller.ground(name)
        state = controller.state(name)
        task = place_oneoff(stack, draft, state.tasks, ground)
        task, networks = address_oneoff(task, state, list(controller.networks.values()), ground)
        await controller.cluster.ask_keys_for([task], networks)
        if failures := await controller.images.ship([task], lambda _: None):
            raise RefusedError(failures[0].reason, 409)
        operations: list[Op] = [Put(keys.of_network(n), msgspec.json.encode(n)) for n in networks]
        await controller.transact([*operations, Put(keys.of_task(task), msgspec.json.encode(task))])
        controller.networks.update({n.name: n for n in networks})
        controller.tasks[task.name] = task
        await controller.cluster.deliver()
        return task


async def part(controller: Controller, name: str, guest: str) -> None:
    """Take back what `invite` gave; not there is fine."""
    async with controller.lock(name):
        if guest in controller.tasks and controller.tasks[guest].desired == "guest":
            await controller.remove_tasks([guest])


async def send_away(controller: Controller, guests: Sequence[Task], tell: Any) -> None:
    """Remove containers that were run by hand, and take back what they had."""
    for guest in guests:
        tell({"event": "step", "action": "remove", "kind": "task", "name": guest.name, "node": guest.node,
              "reason": "down"})
        member = controller.cluster.members.get(guest.node)
        if member and member.ready:
            with contextlib.suppress(RefusedError, UnreachableError):
                await member.courier.call("DELETE", f"/containers/{guest.name}", params={"force": "1", "v": "1"})
    if guests:
        await controller.remove_tasks([g.name for g in guests])
