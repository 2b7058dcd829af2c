"""Takes a stack down, and stops, starts, restarts and removes its tasks, in the order that depends_on asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence, Set

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.planning import graph
from orchestrator.server import store_keys
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, StepEvent
from orchestrator.server.oneoff import remove_oneoffs
from orchestrator.server.rollout import Rollout
from orchestrator.stackfile.graph import needed
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Delete, Op

UP_TIMEOUT_S = 60.0
"""How long `start` and `restart` wait until a task is up."""
ACTIVE = ("running", "stopping", "restarting", "paused", "starting")
"""The states of a task that still has a process."""


async def down(dispatcher: Dispatcher, name: str, *, volumes: bool, emit: Emit) -> None:
    """Stop and remove all of stack *name* in reverse order, its volumes only with *volumes*. Does nothing if there is none."""
    state = dispatcher.state
    async with state.lock(name):
        record = state.stacks.get(name)
        await remove_oneoffs(dispatcher, [t for t in state.of_stack(name).tasks if t.desired == "oneoff"], emit)
        current = state.of_stack(name)
        order = [set(wave) for wave in graph.waves(record.stack)] if record else []
        orphans = {t.service for t in current.tasks} - (set().union(*order) if order else set())
        for wave in [orphans, *reversed(order)]:
            names = [t.name for t in current.tasks if t.service in wave and t.name in state.tasks]
            if names:
                for task in names:
                    emit(StepEvent(action="remove", kind="task", name=task, reason="down"))
                await dispatcher.remove_tasks(names)
                await dispatcher.wait_removed(names)
        networks = [n.name for n in current.networks]
        for network in networks:
            emit(StepEvent(action="remove", kind="network", name=network, reason="down"))
        operations: list[Op] = [Delete(store_keys.of_network(n)) for n in networks]
        if volumes:
            operations += [Delete(store_keys.of_volume(v.name)) for v in current.volumes]
        operations.append(Delete(store_keys.of_stack(name)))
        await state.transact(operations)
        for network in networks:
            state.networks.pop(network, None)
        state.stacks.pop(name, None)
        if volumes:
            for volume in current.volumes:
                state.volumes.pop(volume.name, None)
        await dispatcher.cluster.deliver()
        if volumes:
            await _remove_volumes(dispatcher, name, emit)


async def _remove_volumes(dispatcher: Dispatcher, stack: str, emit: Emit) -> None:
    """Remove the stack's volumes from every node that answers."""
    filters = msgspec.json.encode({"label": [f"com.docker.compose.project={stack}"]}).decode()
    for name in sorted(dispatcher.cluster.ready):
        client = dispatcher.cluster.members[name].client
        found = await client.call("GET", "/volumes", params={"filters": filters})
        for volume in found["Volumes"]:
            emit(StepEvent(action="remove", kind="volume", name=volume["Name"], node=name, reason="down -v"))
            await client.call("DELETE", f"/volumes/{volume['Name']}")


async def change_desired_state(
    dispatcher: Dispatcher, name: str, verb: str, services: Sequence[str], emit: Emit, *, timeout_s: float | None = None
) -> list[Failure]:
    """Stop, start or restart (*verb*) the tasks of stack *name*, in the order that depends_on asks for; all if *services* is
    empty. `start` includes the services that they depend on, `restart` those whose depends_on asks to be restarted.

    *timeout_s* is how long a container may take to end, instead of its own stop_grace_period. Returns the tasks that failed.
    Raises RefusedError (404) if there is no such stack or service."""
    state = dispatcher.state
    async with state.lock(name):
        stack = state.get_stack(name).stack
        chosen = _services(stack, verb, services)
        order = list(graph.waves(stack))
        for wave in reversed(order) if verb == "stop" else order:
            tasks = [
                t for t in state.of_stack(name).tasks if t.service in wave and t.service in chosen and t.desired != "oneoff"
            ]
            if not tasks:
                continue
            changed = [_changed(dispatcher, t, verb) for t in tasks]
            for task in tasks:
                emit(StepEvent(action="update", kind="task", name=task.name, reason=verb))
            await dispatcher.write_tasks(changed)
            killer = asyncio.create_task(_kill_after(dispatcher, changed, timeout_s)) if timeout_s is not None else None
            failures = await _wait(dispatcher, stack, changed, verb)
            if killer:
                killer.cancel()
            if failures:
                return failures
    return []


def _services(stack: Stack, verb: str, services: Sequence[str]) -> Set[str]:
    """The services that *verb* is for, if the user named *services*."""
    known = {s.name for s in stack.services}
    if unknown := set(services) - known:
        raise RefusedError(f"stack {stack.name} has no service {', '.join(sorted(unknown))}", 404)
    chosen = set(services) or known
    if verb == "start":
        return needed(stack.services, chosen)
    return graph.restarted_with(stack, chosen) if verb == "restart" else chosen


async def _kill_after(dispatcher: Dispatcher, tasks: Sequence[Task], timeout_s: float) -> None:
    """Wait for *timeout_s*, then kill those of *tasks* that have not ended."""
    await asyncio.sleep(timeout_s)
    for task in tasks:
        status, member = dispatcher.statuses.by_task.get(task.name), dispatcher.cluster.members.get(task.node)
        if status and status.container and status.state == "stopping" and member and member.ready:
            with contextlib.suppress(PystackError):
                await member.client.call("POST", f"/containers/{status.container}/kill")


async def remove(dispatcher: Dispatcher, name: str, tasks: Sequence[str], emit: Emit) -> None:
    """Remove *tasks* of stack *name*; the next `up` makes them anew. Raises RefusedError (404) if one is not there."""
    async with dispatcher.state.lock(name):
        there = {t.name for t in dispatcher.state.of_stack(name).tasks}
        if unknown := set(tasks) - there:
            raise RefusedError(f"stack {name} has no task {', '.join(sorted(unknown))}", 404)
        for task in tasks:
            emit(StepEvent(action="remove", kind="task", name=task, reason="rm"))
        await dispatcher.remove_tasks(tasks)
        await dispatcher.wait_removed(tasks)


def _changed(dispatcher: Dispatcher, task: Task, verb: str) -> Task:
    """*task* with the desired state that *verb* asks for."""
    if verb == "stop":
        return msgspec.structs.replace(task, desired="stopped")
    # a task that ended by itself is started by a new generation too; `start` leaves one that runs alone
    status = dispatcher.statuses.by_task.get(task.name)
    runs = status is not None and status.state in ("running", "paused", "starting", "restarting")
    anew = verb == "restart" or not runs
    return msgspec.structs.replace(task, desired="running", generation=task.generation + (1 if anew else 0))


async def _wait(dispatcher: Dispatcher, stack: Stack, tasks: Sequence[Task], verb: str) -> list[Failure]:
    """Wait until *tasks* are stopped, or up. Returns those that failed."""
    if verb == "stop":
        by_task = dispatcher.statuses.by_task
        await dispatcher.statuses.until(
            lambda: True if not any((s := by_task.get(t.name)) and s.state in ACTIVE for t in tasks) else None
        )
        return []
    rollout = Rollout(stack.services, tasks, dispatcher, want="up", timeout_s=UP_TIMEOUT_S)
    return [await dispatcher.with_log(f) for f in await rollout.run()]
