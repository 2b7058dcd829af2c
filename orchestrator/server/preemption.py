"""Takes tasks away for others of a higher priority, and brings them back when there is room again.

`placement/preemption.py` decides who goes. What went is kept in the store until it is back, so that any leader goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import msgspec

from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.arrange import reassign
from orchestrator.placement.eviction import Eviction
from orchestrator.server import store_keys
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, ignore
from orchestrator.server.inputs import Inputs
from orchestrator.store.interface import Put

POLL_INTERVAL_S = 1.0
ANYHOW_S = 10.0
Redeploy = Callable[[str, Emit], Awaitable[list[Failure]]]
log = logging.getLogger(__name__)


async def evict(dispatcher: Dispatcher, stack: str, evicted: Sequence[Eviction], emit: Emit = ignore) -> None:
    """Drain and remove the tasks that go for *stack*, whose lock the caller holds, and wait until they are gone. Raises
    RefusedError (409) if the stack of one of them is being changed: nothing is done then."""
    state = dispatcher.state
    if not (evicted := [e for e in evicted if e.task in state.tasks]):
        return
    others = sorted({e.stack for e in evicted} - {stack})
    if busy := [name for name in others if state.lock(f"stack {name}").busy]:
        raise RefusedError(
            f"tasks of stack {', '.join(busy)} are to make room, and it is being changed meanwhile: try again", 409
        )
    async with AsyncExitStack() as held:
        for name in others:  # they are free: to wait here, with a lock of our own, could be for ever
            await held.enter_async_context(state.lock(f"stack {name}").hold("preempt", emit))
        # first the record: who is gone without one would never come back
        await state.transact([Put(store_keys.of_preempted(e.stack, e.task), msgspec.json.encode(e)) for e in evicted])
        state.preempted |= {e.task: e for e in evicted}
        for one in evicted:
            log.warning("%s leaves %s: it %s", one.task, one.node, one.reason)
            _announce(dispatcher, one)
        names = [e.task for e in evicted]
        async with dispatcher.drained(names):
            await dispatcher.remove_tasks(names)
            await dispatcher.wait_removed(names)


def _announce(dispatcher: Dispatcher, one: Eviction) -> None:
    """Tell those who follow events."""
    status = dispatcher.statuses.by_task.get(one.task) or TaskStatus(task=one.task, state="stopping")
    for listen in list(dispatcher.statuses.listeners):
        listen(msgspec.structs.replace(status, state="stopping", health="", error=f"preempted: it {one.reason}"))


class PreemptedReturn:
    """The loop that brings tasks back that had to go, those of the highest priority first; *redeploy* is that of the
    rollouts."""

    def __init__(self, dispatcher: Dispatcher, inputs: Inputs, redeploy: Redeploy) -> None:
        self._state, self._cluster = dispatcher.state, dispatcher.cluster
        self._inputs, self._redeploy = inputs, redeploy

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            seen: object = None
            while True:
                await asyncio.sleep(POLL_INTERVAL_S)
                if not (stacks := self._stacks()) or (now := self._situation()) == seen:
                    continue
                seen = now
                for stack in stacks:
                    if not self._state.lock(f"stack {stack}").busy and self._has_room(stack):
                        group.create_task(self._bring_back(stack), name=f"bring back tasks of {stack}")
                        break  # what comes back takes room: the next look knows it

    def _situation(self) -> object:
        """What may give a task room when it changes; every few seconds it counts as changed, as jobs end too."""
        nodes = [
            (m.node.name, m.ready, m.node.availability, m.node.labels, m.node.taints) for m in self._cluster.members.values()
        ]
        busy = [name for name in self._state.stacks if self._state.lock(f"stack {name}").busy]
        return frozenset(self._state.tasks), nodes, busy, int(time.monotonic() / ANYHOW_S)

    def _stacks(self) -> list[str]:
        """The stacks with tasks that wait, the highest priority first."""
        highest: dict[str, int] = {}
        for name, one in self._state.preempted.items():
            if name not in self._state.tasks and one.stack in self._state.stacks:
                highest[one.stack] = max(one.priority, highest.get(one.stack, one.priority))
        return sorted(highest, key=lambda s: (-highest[s], s))

    def _has_room(self, stack: str) -> bool:
        """Whether one of the tasks of *stack* that wait finds a node."""
        record, waiting = self._state.stacks[stack].stack, self._state.waiting_for_room(stack)
        services = {s.name: s for s in record.services}
        lost = [
            Task(name=e.task, stack=stack, service=e.service, container=Container(image=""))
            for e in waiting.values()
            if e.service in services
        ]
        tasks = [t for t in self._state.of_stack(stack).tasks if t.desired != "oneoff"]
        nodes, _ = reassign(record, [*tasks, *lost], self._inputs.placement(stack), {t.name for t in lost})
        return bool(nodes)

    async def _bring_back(self, stack: str) -> None:
        try:
            if failures := await self._redeploy(stack, ignore):
                log.warning("tasks of stack %s that came back failed: %s", stack, "; ".join(f.reason for f in failures))
        except (PystackError, ExceptionGroup) as error:
            log.warning("tasks of stack %s that made room do not come back yet: %s", stack, error)
