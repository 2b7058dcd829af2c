"""A stack's tasks, stopped, started, restarted and taken away, in the order that depends_on asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.manifest import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.planning import graph
from orchestrator.server import oneoff, store_keys
from orchestrator.server.records import UpOptions
from orchestrator.server.rollout import Failure, Rollout
from orchestrator.stackfile.graph import needed
from orchestrator.store.interface import Delete, Op

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller


async def down(controller: Controller, name: str, *, volumes: bool, tell: Any) -> None:
    """Stop and remove in reverse order; networks go, volumes where asked. Nothing there is fine."""
    async with controller.lock(name):
        record = controller.stacks.get(name)
        await oneoff.send_away(controller, [t for t in controller.state(name).tasks if t.desired == "guest"], tell)
        state = controller.state(name)
        order = [set(wave) for wave in graph.waves(record.stack)] if record else []
        placed = set().union(*order) if order else set()
        rest = {t.service for t in state.tasks} - placed
        for wave in [rest, *reversed(order)]:
            names = [t.name for t in state.tasks if t.service in wave and t.name in controller.tasks]
            if names:
                for task in names:
                    tell({"event": "step", "action": "remove", "kind": "task", "name": task, "reason": "down"})
                await controller.remove_tasks(names)
                await controller.gone(names)
        networks = [n.name for n in state.networks]
        for network in networks:
            tell({"event": "step", "action": "remove", "kind": "network", "name": network, "reason": "down"})
        operations: list[Op] = [Delete(store_keys.of_network(n)) for n in networks]
        if volumes:
            operations += [Delete(f"volumes/{v.name}") for v in state.volumes]
        operations.append(Delete(f"stacks/{name}"))
        await controller.transact(operations)
        for network in networks:
            controller.networks.pop(network, None)
        controller.stacks.pop(name, None)
        if volumes:
            for volume in state.volumes:
                controller.volumes.pop(volume.name, None)
        await controller.cluster.deliver()
        if volumes:
            await _remove_volumes(controller, name, tell)


async def _remove_volumes(controller: Controller, stack: str, tell: Any) -> None:
    filters = msgspec.json.encode({"label": [f"com.docker.compose.project={stack}"]}).decode()
    for name in sorted(controller.cluster.ready):
        courier = controller.cluster.members[name].courier
        found = await courier.call("GET", "/volumes", params={"filters": filters})
        for volume in found["Volumes"]:
            tell({"event": "step", "action": "remove", "kind": "volume", "name": volume["Name"], "node": name,
                  "reason": "down -v"})
            await courier.call("DELETE", f"/volumes/{volume['Name']}")


async def act(
    controller: Controller, name: str, verb: str, services: Sequence[str], tell: Any, *, timeout_s: float | None = None
) -> list[Failure]:
    """stop, start or restart the tasks of a stack, in the order that depends_on asks for; start takes along what the
    services need, restart those whose depends_on asks for it. *timeout_s* is how long a
    container may take to end, instead of its own stop_grace_period."""
    async with controller.lock(name):
        stack = controller.known(name).stack
        unknown = set(services) - {s.name for s in stack.services}
        if unknown:
            raise RefusedError(f"stack {name} has no service {', '.join(sorted(unknown))}", 404)
        chosen = set(services) or {s.name for s in stack.services}
        if verb == "start":
            chosen = needed(stack.services, chosen)
        elif verb == "restart":
            chosen = graph.restarted_with(stack, chosen)
        order = list(graph.waves(stack))
        for wave in reversed(order) if verb == "stop" else order:
            tasks = [
                t for t in controller.state(name).tasks
                if t.service in wave and t.service in chosen and t.desired != "guest"
            ]
            changed = [_changed(controller, t, verb) for t in tasks]
            if not tasks:
                continue
            for task in tasks:
                tell({"event": "step", "action": "update", "kind": "task", "name": task.name, "reason": verb})
            await controller.write_tasks(changed)
            hurry = asyncio.create_task(_hurry(controller, changed, timeout_s)) if timeout_s is not None else None
            failures = await _settled(controller, changed, verb)
            if hurry:
                hurry.cancel()
            if failures:
                return failures
    return []


async def _hurry(controller: Controller, tasks: Sequence[Task], timeout_s: float) -> None:
    """End what has not ended by itself after so long."""
    await asyncio.sleep(timeout_s)
    for task in tasks:
        status, member = controller.statuses.by_task.get(task.name), controller.cluster.members.get(task.node)
        if status and status.container and status.state == "stopping" and member and member.ready:
            with contextlib.suppress(PystackError):
                await member.courier.call("POST", f"/containers/{status.container}/kill")


async def again(controller: Controller, name: str, tell: Any, wishes: Mapping[str, str] = {}) -> list[Failure]:
    """Bring a stack up as it is, with as many replicas as it has, on the nodes that are right for it now."""
    scale: dict[str, int] = {}
    for task in controller.state(name).tasks:
        scale[task.service] = scale.get(task.service, 0) + (task.desired != "guest")
    record = controller.known(name).stack
    fixed = {s.name for s in record.services if s.mode.startswith("replicated")}
    options = UpOptions(scale={k: v for k, v in scale.items() if k in fixed}, moves=dict(wishes))
    return await controller.up(record, options, tell)


async def remove(controller: Controller, name: str, tasks: Sequence[str], tell: Any) -> None:
    """Take tasks out of what the stack is now; its file still asks for them."""
    async with controller.lock(name):
        there = {t.name for t in controller.state(name).tasks}
        if unknown := set(tasks) - there:
            raise RefusedError(f"stack {name} has no task {', '.join(sorted(unknown))}", 404)
        for task in tasks:
            tell({"event": "step", "action": "remove", "kind": "task", "name": task, "reason": "rm"})
        await controller.remove_tasks(tasks)
        await controller.gone(tasks)


def _changed(controller: Controller, task: Task, verb: str) -> Task:
    if verb == "stop":
        return msgspec.structs.replace(task, desired="stopped")
    # one that ended by itself is started by a new generation too; one that runs is left alone by `start`
    status = controller.statuses.by_task.get(task.name)
    runs = status is not None and status.state in ("running", "paused", "starting", "restarting")
    again = verb == "restart" or not runs
    return msgspec.structs.replace(task, desired="running", generation=task.generation + (1 if again else 0))


async def _settled(controller: Controller, tasks: Sequence[Task], verb: str) -> list[Failure]:
    if verb == "stop":
        up = ("running", "stopping", "restarting", "paused", "starting")
        await controller.statuses.until(lambda: True if not any(
            (s := controller.statuses.by_task.get(t.name)) and s.state in up for t in tasks
        ) else None)
        return []
    rollout = Rollout(controller.known(tasks[0].stack).stack.services, tasks, controller.statuses,
                      lambda t: asyncio.ensure_future(controller.write_tasks(t)), want="up", timeout_s=60,
                      lost=controller.lost)
    return [await controller.with_log(f) for f in await rollout.run()]
