"""The effects of a rolling update on the cluster: tasks are replaced in place, and surge tasks exist for its duration."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.errors import PystackError, UndeliveredError
from orchestrator.planning.state import Plan
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, StepEvent, WarningEvent
from orchestrator.server.images import Images
from orchestrator.server.plan import Planner
from orchestrator.server.preemption import evict
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.records import UpOptions
from orchestrator.server.rollout_control import RolloutControl
from orchestrator.server.traffic import Traffic, TrafficSource
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.workloads import AbortOn, DeployHook

HOLD_PART_S = 0.5


class Wanted(NamedTuple):
    """What a rollout carries out."""

    stack: Stack
    options: UpOptions
    plan: Plan


class UpdateExecutor:
    """The `UpdateActions` for the rolling updates of one plan."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        planner: Planner,
        images: Images,
        wanted: Wanted,
        emit: Emit,
        control: RolloutControl,
        requests: TrafficSource | None = None,
    ) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._planner, self._images = planner, images
        self._stack, self._options, self._plan = wanted
        self._emit = emit
        self._control = control
        self._requests = requests

    async def exchange(self, tasks: Sequence[Task]) -> None:
        """Drain the tasks that have the names of *tasks*, then replace them. The new ones stay drained until `mark_ready`."""
        await self._dispatcher.drain_tasks(t.name for t in tasks)
        if moved := [t.name for t in tasks if self._state.tasks[t.name].node != t.node]:
            await self._dispatcher.remove_tasks(moved)
            await self._dispatcher.wait_removed(moved)
            self._state.draining |= set(moved)
        await self._dispatcher.write_tasks(tasks)

    async def mark_ready(self, tasks: Sequence[Task]) -> None:
        """Let new connections go to *tasks* again."""
        await self._dispatcher.undrain_tasks(t.name for t in tasks)

    async def surge(self, service: str, count: int, share: float = -1.0) -> list[Task]:
        """Have *count* more tasks of *service*, as if it had more replicas, with that *share* of its connections. Returns all
        of them. Raises PystackError if no node can take them."""
        there = [t for t in self._plan.desired.tasks if t.service == service and t.planned]
        one = next(s for s in self._stack.services if s.name == service)
        if not one.mode.startswith("replicated"):
            raise PystackError("it has a task on each node")
        scale = dict(self._options.scale) | {service: len(there) + count}
        desired = await self._planner.desired(self._stack, msgspec.structs.replace(self._options, scale=scale))
        wanted = [t for t in desired.tasks if t.service == service and t.index > max(o.index for o in there)]
        known_tasks = self._state.tasks
        surge = [msgspec.structs.replace(t, share=share) for t in wanted if t.name not in known_tasks]
        # networks that more nodes carry because of the surge; a node that has an address on one already keeps it
        known = self._state.networks
        carried = [
            msgspec.structs.replace(known[n.name], hosts=n.hosts)
            for n in desired.networks
            if n.name in known and known[n.name].hosts != n.hosts
        ]
        with self._state.expected(self._stack, surge):  # nobody else gets that room
            if failures := await prepare_nodes(self._cluster, self._images, surge, carried, self._emit):
                raise PystackError(failures[0].reason)
            # as any other task of its priority does; who goes comes back when the spare is gone
            await evict(self._dispatcher, self._stack.name, desired.evicted, self._emit)
            await self._write_surge(surge, carried)
        return [known_tasks[t.name] for t in wanted]

    async def _write_surge(self, surge: Sequence[Task], carried: Sequence[Network]) -> None:
        for task in surge:
            self._emit(
                StepEvent(
                    action="create",
                    kind="task",
                    name=task.name,
                    node=task.node,
                    reason="start-first: a spare while the others are exchanged",
                )
            )
        await self._state.put(tasks=surge, networks=carried)
        try:
            await self._cluster.deliver()
        except BaseException:
            await self.remove_surge(surge)
            raise

    async def weigh(self, tasks: Sequence[Task], share: float) -> None:
        """Give *tasks*, which `surge` started, another share of their service's connections."""
        there = [self._state.tasks[t.name] for t in tasks if t.name in self._state.tasks]
        await self._dispatcher.write_tasks([msgspec.structs.replace(t, share=share) for t in there])

    async def hold(self, seconds: float, phase: str, down: Callable[[], str | None]) -> str:
        """Stay at *phase* for that long, or until somebody promotes the rollout; while it is to pause, for longer. Returns what
        *down* does if that is not None meanwhile, else ""."""
        self._control.promoted.clear()
        await self._control.note(phase)
        self.warn(phase)
        passed, shown_phase = 0.0, phase
        while (passed < seconds or self._control.pausing) and not self._control.promoted.is_set():
            now = f"{phase}, paused: `pystack rollout resume` goes on with it" if self._control.pausing else phase
            if now != shown_phase:
                shown_phase = now
                await self._control.note(now)
            part = min(HOLD_PART_S, seconds - passed) if passed < seconds else HOLD_PART_S
            try:
                return await self._dispatcher.statuses.until(down, within_s=part)
            except TimeoutError:
                passed += 0.0 if self._control.pausing else part
        return down() or ""

    @asynccontextmanager
    async def observed(self, limits: AbortOn) -> AsyncIterator[Traffic]:
        """See the requests meanwhile, to hold them against *limits*."""
        traffic = Traffic(limits)
        if self._requests is None or limits == AbortOn():
            yield traffic
            return
        async with self._requests.observe(traffic.add):
            yield traffic

    async def analyse(self, service: Service, hook: DeployHook) -> str:
        """Run *hook* beside the tasks of *service*. Returns "", or the reason why it failed."""
        return await self._control.analyse(self._stack, service, hook, self._emit)

    async def remove_surge(self, tasks: Sequence[Task]) -> None:
        """Drain and remove the tasks that `surge` started, and take back the networks that only they needed."""
        names = [t.name for t in tasks]
        async with self._dispatcher.drained(names):
            with contextlib.suppress(UndeliveredError):  # a node that is silent now has none of them, or ends it later
                await self._dispatcher.remove_tasks(names)
            await self._dispatcher.wait_removed(names)
        planned = {n.name: n for n in self._plan.desired.networks}
        known = self._state.networks
        await self._state.put(networks=[n for n in planned.values() if n.name in known and known[n.name].hosts != n.hosts])
        await self._cluster.deliver_where_possible()

    async def checkpoint(self, done: int, total: int) -> None:
        """*done* of *total* tasks are exchanged: the update goes on, unless somebody asked it to pause."""
        await self._control.note(f"{done} of {total} tasks are exchanged")
        await self._control.checkpoint()

    def warn(self, sentence: str) -> None:
        """Report *sentence* to the user."""
        self._emit(WarningEvent(message=sentence))
