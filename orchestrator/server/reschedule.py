"""Moves the tasks of nodes that fell silent to other nodes (`reschedule_after` in the configuration).

Only the node changes: a task keeps its definition, name and addresses. So nothing else of a stack is touched, and an update
that waits for something goes on waiting. A task that is bound to its node (by a volume, a port, a constraint) stays there. A
server that does not reach more than half of the nodes assumes that it is cut off itself, and moves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.placement.arrange import reassign
from orchestrator.placement.context import PlacementContext
from orchestrator.planning.expand import networks_after_move
from orchestrator.planning.jobs import end_of
from orchestrator.planning.state import State
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import ignore
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.preemption import evict
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.silence import SilenceWatch
from orchestrator.server.statuses import serves
from orchestrator.stackfile.model import Service, Stack

POLL_INTERVAL_S = 0.5
log = logging.getLogger(__name__)


class Rescheduler:
    """The loop that moves tasks away from nodes that have been silent for *after_s* seconds, or were removed."""

    def __init__(self, dispatcher: Dispatcher, images: Images, inputs: Inputs, after_s: float) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._images = images
        self._inputs = inputs
        self._watch_of_silence = SilenceWatch(after_s)
        self._lost: frozenset[str] = frozenset()
        """The nodes that have been silent for long enough."""
        self._isolated = False
        self._busy: set[str] = set()
        """Stacks whose tasks are being moved, or that wait for an `up` to end."""

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            await self._watch(group)

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        """Stacks are looked after side by side: one whose `up` waits must not keep the tasks of the others on a dead node."""
        tried: object = None
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self._look()
            silent = self._silent()
            stacks = sorted({t.stack for t in self._state.tasks.values() if t.node in silent})
            # tasks that no node could take are tried again when something is different
            fenced = frozenset(filter(self._cluster.is_fenced, silent))
            # stacks that are being changed make no room; those that are looked after here count not as such
            busy = frozenset(s for s in self._state.stacks if s not in self._busy and self._state.lock(f"stack {s}").busy)
            situation = (silent, fenced, frozenset(self._cluster.ready), frozenset(self._state.tasks), busy)
            if situation == tried and stacks:
                continue
            tried = situation if stacks else None  # an `up` that ends later may bring the same situation again
            for stack in (s for s in stacks if s not in self._busy):
                self._busy.add(stack)
                group.create_task(self._try(stack), name=f"reschedule {stack}")

    def _look(self) -> None:
        """Find out who is lost, and say once that this server is the one that is cut off."""
        members, now = self._cluster.members, asyncio.get_running_loop().time()
        running = {name for name, m in members.items() if m.machine_answers}
        self._lost = self._watch_of_silence.lost(now, {name: m.last_word for name, m in members.items()}, running)
        isolated = self._watch_of_silence.isolated(now)
        if isolated and not self._isolated:
            away = ", ".join(sorted(set(members) - self._cluster.ready))
            log.warning("more than half of all nodes are silent, so nothing is moved: %s", away)
        self._isolated = isolated

    async def _try(self, stack: str) -> None:
        try:
            await self._reschedule(stack)
        except PystackError as error:
            log.warning("tasks of stack %s stay on nodes that do not answer: %s", stack, error)
        finally:
            self._busy.discard(stack)

    def _silent(self) -> frozenset[str]:
        """The nodes that have been silent for long enough, and those that were removed and left tasks behind."""
        known = self._cluster.members.keys() | self._cluster.unreadable
        return self._lost | ({t.node for t in self._state.tasks.values()} - known)

    async def _reschedule(self, name: str) -> None:
        """Move the tasks of stack *name* away from the nodes that are silent, as far as other nodes can take them."""
        state = self._state
        async with state.lock(f"stack {name}").hold("move off a silent node"):
            if name not in state.stacks:
                return
            await self._drop_bound(name)
            stack, current, placement = state.stacks[name].stack, state.of_stack(name), self._inputs.placement(name)
            flapping = self._watch_of_silence.flapping(asyncio.get_running_loop().time())
            placement = msgspec.structs.replace(placement, ready=placement.ready - flapping)
            there = [t for t in current.tasks if t.desired != "oneoff"]
            nodes, evicted = reassign(stack, there, placement, self._lost_tasks(stack))
            moved = [msgspec.structs.replace(t, node=nodes[t.name]) for t in current.tasks if t.name in nodes]
            with state.expected(stack, moved):  # nobody else gets that room
                networks = networks_after_move(moved, current, list(state.networks.values()), placement)
                failures = await prepare_nodes(self._cluster, self._images, moved, networks, ignore)
                stuck = {f.task for f in failures}
                if moved := self._still_lost(stack, moved, stuck):
                    await evict(self._dispatcher, name, [e for e in evicted if e.by in {t.name for t in moved}])
                    await self._write(self._still_lost(stack, moved), current, placement)

    def _lost_tasks(self, stack: Stack) -> set[str]:
        """The tasks of *stack* that are to go to other nodes, as their own is silent now and must not run them any more."""
        away = self._silent() - self._cluster.ready
        services = {s.name: s for s in stack.services}
        mobile = {s.name for s in stack.services if s.mode.startswith("replicated")}
        return {
            t.name
            for t in self._state.of_stack(stack.name).tasks
            if t.node in away
            and t.service in mobile
            and t.desired == "running"
            and (not t.strict or self._cluster.is_fenced(t.node))
            and not self._is_done(t, services[t.service])
            and not (services[t.service].stable and self._has_volume(t))
        }

    def _still_lost(self, stack: Stack, moved: Sequence[Task], stuck: Set[str] = frozenset()) -> list[Task]:
        """Those of *moved* whose node did not come back while the others were made ready for them; it runs them again."""
        lost = self._lost_tasks(stack) - stuck
        return [t for t in moved if t.name in lost]

    async def _write(self, moved: Sequence[Task], current: State, placement: PlacementContext) -> None:
        """Write that *moved* have other nodes now."""
        names = {t.name for t in moved}
        if not moved:
            return
        networks = networks_after_move(moved, current, list(self._state.networks.values()), placement)
        with self._state.on_their_way(names):  # a node that comes back now does not get them any more
            await self._state.put(tasks=moved, networks=networks)
        self._dispatcher.statuses.forget(names)
        for task in moved:
            log.warning("%s goes to %s: its node is silent, or gone", task.name, task.node)
        await self._cluster.deliver()

    async def _drop_bound(self, stack: str) -> None:
        """Delete the tasks of *stack* that went with their removed node: those that are one for each node, or nobody keeps."""
        state, known = self._state, self._cluster.members.keys() | self._cluster.unreadable
        everywhere = {s.name for s in state.stacks[stack].stack.services if s.mode.startswith("global")}
        bound = [
            t.name
            for t in state.of_stack(stack).tasks
            if t.node not in known and (t.service in everywhere or t.desired == "oneoff")
        ]
        if bound:
            self._dispatcher.statuses.forget(set(bound))
            await state.delete_tasks(bound)
            await self._cluster.deliver()

    def _has_volume(self, task: Task) -> bool:
        """Whether *task* has a volume of its own that lives on its node."""
        volumes = self._state.volumes
        sources = (m.source for m in task.container.mounts if m.kind == "volume" and m.source in volumes)
        return any(volumes[s].node == task.node and not volumes[s].shared for s in sources)

    def _is_done(self, task: Task, service: Service) -> bool:
        """Whether *task* had ended with exit code 0 when its node last reported; one of a job, whether it had ended, or may
        have begun where it must not begin twice."""
        status = self._dispatcher.statuses.by_task.get(task.name)
        if task.run or service.is_job:
            return end_of(task, status) is not None or (task.container.restart == "no" and bool(status and status.started))
        return status is not None and not serves(status) and status.state == "exited" and status.exit_code == 0
