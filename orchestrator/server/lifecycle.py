"""Takes a stack down, and stops, starts, restarts and removes its tasks, in the order that depends_on asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence, Set

import msgspec

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError, require_services
from orchestrator.planning import graph
from orchestrator.server import store_keys
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, StepEvent
from orchestrator.server.oneoff import remove_oneoffs
from orchestrator.server.records import ROLLOUT_VERBS, ActRequest
from orchestrator.server.rollout import Rollout
from orchestrator.stackfile.graph import needed
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Delete, Op

ACTIVE = ("running", "stopping", "restarting", "paused", "starting")
"""The states of a task that still has a process."""


async def down(dispatcher: Dispatcher, name: str, *, volumes: bool, emit: Emit) -> list[Failure]:
    """Stop and remove all of stack *name* in reverse order, its volumes only with *volumes*. Does nothing if there is none.

    Returns the tasks whose hooks failed; they are gone too."""
    with _failing_hooks(dispatcher, name) as failing:
        await _down(dispatcher, name, volumes=volumes, emit=emit)
    return failing


async def _down(dispatcher: Dispatcher, name: str, *, volumes: bool, emit: Emit) -> None:
    state = dispatcher.state
    async with state.lock(f"stack {name}").hold("down", emit, instead_of=ROLLOUT_VERBS):
        record = state.stacks.get(name)
        await remove_oneoffs(dispatcher, [t for t in state.of_stack(name).tasks if t.desired == "oneoff"], emit)
        current = state.of_stack(name)
        order = [set(wave) for wave in graph.waves(record.stack)] if record else []
        orphans = {t.service for t in current.tasks} - (set().union(*order) if order else set())
        for wave in [orphans, *reversed(order)]:
            going = [t for t in current.tasks if t.service in wave and t.name in state.tasks]
            if going:
                for task in going:
                    emit(_removal(task, "down"))
                names = [t.name for t in going]
                await dispatcher.remove_tasks(names)
                await dispatcher.wait_removed(names)
        networks = [n.name for n in current.networks]
        for network in networks:
            emit(StepEvent(action="remove", kind="network", name=network, reason="down"))
        operations: list[Op] = [Delete(store_keys.of_network(n)) for n in networks]
        if volumes:
            operations += [Delete(store_keys.of_volume(v.name)) for v in current.volumes]
        waiting = [n for n, e in state.preempted.items() if e.stack == name]
        operations += [Delete(store_keys.of_preempted(name, n)) for n in waiting]
        operations.append(Delete(store_keys.of_stack(name)))
        await state.transact(operations)
        for network in networks:
            state.networks.pop(network, None)
        state.stacks.pop(name, None)
        for one in waiting:
            state.preempted.pop(one, None)
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


async def change_desired_state(dispatcher: Dispatcher, name: str, verb: str, asked: ActRequest, emit: Emit) -> list[Failure]:
    """Stop, start or restart (*verb*) the tasks of stack *name*, in the order that depends_on asks for. Each waits for what its
    depends_on says. With *deps*, `start` includes the services that they depend on, `restart` those whose depends_on asks to be
    restarted. The *timeout_s* of `start` is how long a container may take to be up.

    Returns the tasks that failed. Raises RefusedError (404) if there is no such stack or service."""
    state = dispatcher.state
    async with state.lock(f"stack {name}").hold(verb, emit, instead_of=ROLLOUT_VERBS if verb == "stop" else ()):
        stack = state.get_stack(name).stack
        chosen = _services(stack, verb, asked.services) if asked.deps else _named(stack, asked.services)
        if verb == "stop":
            with _failing_hooks(dispatcher, name) as failing:
                await _stop(dispatcher, stack, chosen, emit, asked)
            return failing
        tasks = [t for t in state.of_stack(name).tasks if t.planned]
        named = {s.name for s in stack.services if s.name in asked.services and s.replicas}
        if without := sorted(named - {t.service for t in tasks}):
            raise RefusedError(f"service {', '.join(without)} has no container to {verb}: `pystack up` makes one", 404)
        orders = _Orders(dispatcher, verb, emit, asked.timeout_s if verb == "restart" else None)
        rollout = Rollout(
            stack.services,
            [_changed(dispatcher, t, verb) if t.service in chosen and _meant(t, asked) else t for t in tasks],
            orders,
            want="begun" if asked.begun else "up",
            timeout_s=asked.timeout_s if verb == "start" else None,
        )
        rollout.followers = graph.followed_by(stack, chosen) - chosen if verb == "restart" else set()
        rollout.bystanders = {s.name for s in stack.services} - chosen - rollout.followers
        try:
            return [await dispatcher.with_log(f) for f in await rollout.run()]
        finally:
            orders.close()


def _meant(task: Task, asked: ActRequest) -> bool:
    """Whether *task*, of one of the services, is to be changed."""
    return not asked.tasks or task.name in asked.tasks


async def _stop(dispatcher: Dispatcher, stack: Stack, chosen: Set[str], emit: Emit, asked: ActRequest) -> None:
    """Stop the tasks of the *chosen* services, those first that need others, and wait until they have ended."""
    by_task = dispatcher.statuses.by_task
    for wave in reversed(list(graph.waves(stack))):
        tasks = [
            t
            for t in dispatcher.state.of_stack(stack.name).tasks
            if t.service in wave and t.service in chosen and t.desired != "oneoff" and _meant(t, asked)
        ]
        if not tasks:
            continue

        def ended(tasks: Sequence[Task] = tasks) -> bool | None:
            return None if any((s := by_task.get(t.name)) and s.state in ACTIVE for t in tasks) else True

        orders = _Orders(dispatcher, "stop", emit, asked.timeout_s)
        try:
            await orders.write_tasks([msgspec.structs.replace(t, desired="stopped") for t in tasks])
            await dispatcher.statuses.until(ended)
        finally:
            orders.close()


@contextlib.contextmanager
def _failing_hooks(dispatcher: Dispatcher, stack: str) -> Iterator[list[Failure]]:
    """Meanwhile, what failed of the hooks of tasks of *stack* that end goes to the list."""
    found: dict[str, Failure] = {}
    tasks = {t.name: t for t in dispatcher.state.of_stack(stack).tasks}
    out: list[Failure] = []

    def listen(status: TaskStatus) -> None:
        if status.pre_stop_failed and status.task in tasks and status.task not in found:
            found[status.task] = Failure(task=status.task, where=tasks[status.task].where, reason=status.error)
            out.append(found[status.task])

    dispatcher.statuses.listeners.add(listen)
    try:
        yield out
    finally:
        dispatcher.statuses.listeners.discard(listen)


class _Orders:
    """Hands the tasks on that are to be stopped, started or restarted (*verb*), tells of each, and kills those that take longer
    than *timeout_s* to end."""

    def __init__(self, dispatcher: Dispatcher, verb: str, emit: Emit, timeout_s: float | None) -> None:
        self.statuses = dispatcher.statuses
        self.unreachable_reason = dispatcher.unreachable_reason
        self._dispatcher, self._verb, self._emit, self._timeout_s = dispatcher, verb, emit, timeout_s
        self._killers: list[asyncio.Task[None]] = []

    async def write_tasks(self, tasks: Sequence[Task]) -> None:
        """Write *tasks* to the store and deliver them to their nodes."""
        for task in tasks:
            step = StepEvent(
                action="update", kind="task", name=task.name, reason=self._verb, container_name=task.container_name
            )
            self._emit(step)
        ending = [t.name for t in tasks] if self._verb in ("stop", "restart") else []
        async with self._dispatcher.drained(ending):
            await self._dispatcher.write_tasks(tasks)
        if self._timeout_s is not None:
            self._killers.append(asyncio.create_task(_kill_after(self._dispatcher, tasks, self._timeout_s)))

    def close(self) -> None:
        """What has not ended by now is left its time."""
        for killer in self._killers:
            killer.cancel()


def _named(stack: Stack, services: Sequence[str]) -> Set[str]:
    """*services*, or all of the stack if that is empty. Raises NoSuchServiceError."""
    known = {s.name for s in stack.services}
    require_services(services, stack.name, known)
    return set(services) or known


def _services(stack: Stack, verb: str, services: Sequence[str]) -> Set[str]:
    """The services that *verb* is for, if the user named *services*."""
    chosen = _named(stack, services)
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
    """Remove *tasks* of stack *name*; the next `up` creates them again. Raises RefusedError (404) if one is not there."""
    async with dispatcher.state.lock(f"stack {name}").hold("rm", emit):
        there = {t.name: t for t in dispatcher.state.of_stack(name).tasks}
        if unknown := set(tasks) - there.keys():
            raise RefusedError(f"stack {name} has no task {', '.join(sorted(unknown))}", 404)
        for task in tasks:
            emit(_removal(there[task], "rm"))
        await dispatcher.remove_tasks(tasks)
        await dispatcher.wait_removed(tasks)


def _removal(task: Task, verb: str) -> StepEvent:
    return StepEvent(action="remove", kind="task", name=task.name, reason=verb, container_name=task.container_name)


def _changed(dispatcher: Dispatcher, task: Task, verb: str) -> Task:
    """*task* as `start` or `restart` (*verb*) releases it, when what it depends on is there."""
    # a task that ended by itself is started by a new generation too; `start` leaves one that runs alone
    status = dispatcher.statuses.by_task.get(task.name)
    runs = status is not None and status.state in ("running", "paused", "starting", "restarting")
    if verb == "start" and runs and task.desired == "running":
        return task
    return msgspec.structs.replace(task, desired="waiting", generation=task.generation + 1)
