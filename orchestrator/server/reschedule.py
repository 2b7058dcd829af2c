"""Moves the tasks of nodes that fell silent to other nodes (`reschedule_after` in the configuration).

Only the node changes: a task keeps its definition, name and addresses. So nothing else of a stack is touched, and an update
that waits for something goes on waiting. A task that is bound to its node (by a volume, a port, a constraint) stays there. A
server that does not reach more than half of the nodes assumes that it is cut off itself, and moves nothing.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.placement.assign import reassign
from orchestrator.planning.expand import networks_after_move
from orchestrator.planning.jobs import end_of
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import ignore
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.statuses import serves
from orchestrator.stackfile.model import Service

POLL_INTERVAL_S = 0.5
log = logging.getLogger(__name__)


class Rescheduler:
    """The loop that moves tasks away from nodes that have been silent for *after_s* seconds."""

    def __init__(self, dispatcher: Dispatcher, images: Images, inputs: Inputs, after_s: float) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._images = images
        self._inputs = inputs
        self._after_s = after_s
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
            silent = self._silent()
            stacks = sorted({t.stack for t in self._state.tasks.values() if t.node in silent})
            # tasks that no node could take are tried again when something is different
            situation = (silent, frozenset(self._cluster.ready), frozenset(self._state.tasks))
            if not stacks or situation == tried:
                continue
            tried = situation
            # nodes that fell silent only now count too: a partition is not noticed on all connections at once
            away = set(self._cluster.members) - self._cluster.ready
            if len(away) * 2 > len(self._cluster.members):
                log.warning("more than half of all nodes are silent, so nothing is moved: %s", ", ".join(sorted(away)))
                continue
            for stack in (s for s in stacks if s not in self._busy):
                self._busy.add(stack)
                group.create_task(self._try(stack), name=f"reschedule {stack}")

    async def _try(self, stack: str) -> None:
        try:
            await self._reschedule(stack)
        except PystackError as error:
            log.warning("tasks of stack %s stay on nodes that are silent: %s", stack, error)
        finally:
            self._busy.discard(stack)

    def _silent(self) -> frozenset[str]:
        """The nodes that have been silent for long enough."""
        now = asyncio.get_running_loop().time()
        return frozenset(
            name
            for name, m in self._cluster.members.items()
            if m.silent_since is not None and now - m.silent_since >= self._after_s
        )

    async def _reschedule(self, name: str) -> None:
        """Move the tasks of stack *name* away from the nodes that are silent, as far as other nodes can take them."""
        state = self._state
        async with state.lock(f"stack {name}").hold("move off a silent node"):
            silent = self._silent()
            if name not in state.stacks:
                return
            stack, current, placement = state.stacks[name].stack, state.of_stack(name), self._inputs.placement(name)
            services = {s.name: s for s in stack.services}
            mobile = {s.name for s in stack.services if s.mode.startswith("replicated")}
            lost = {
                t.name
                for t in current.tasks
                if t.node in silent - self._cluster.ready
                and t.service in mobile
                and t.desired == "running"
                and not self._is_done(t, services[t.service])
                and not (services[t.service].stable and self._has_volume(t))
            }
            nodes = reassign(stack, [t for t in current.tasks if t.desired != "oneoff"], placement, lost)
            moved = [msgspec.structs.replace(t, node=nodes[t.name]) for t in current.tasks if t.name in nodes]
            networks = networks_after_move(moved, current, list(state.networks.values()), placement)
            failures = await prepare_nodes(self._cluster, self._images, moved, networks, ignore)
            if stuck := {f.task for f in failures}:
                moved = [t for t in moved if t.name not in stuck]
                networks = networks_after_move(moved, current, list(state.networks.values()), placement)
            if not moved:
                return
            await state.put(tasks=moved, networks=networks)
            self._dispatcher.statuses.forget({t.name for t in moved})
            for task in moved:
                log.warning("%s goes to %s: its node is silent", task.name, task.node)
            await self._cluster.deliver()

    def _has_volume(self, task: Task) -> bool:
        """Whether *task* has a volume of its own that lives on its node."""
        volumes = self._state.volumes
        sources = (m.source for m in task.container.mounts if m.kind == "volume" and m.source in volumes)
        return any(volumes[s].node == task.node and not volumes[s].shared for s in sources)

    def _is_done(self, task: Task, service: Service) -> bool:
        """Whether *task* had ended with exit code 0 when its node was last heard; one of a job, whether it had ended, or may
        have begun where it must not begin twice."""
        status = self._dispatcher.statuses.by_task.get(task.name)
        if task.run or service.is_job:
            return end_of(task, status) is not None or (task.container.restart == "no" and bool(status and status.started))
        return status is not None and not serves(status) and status.state == "exited" and status.exit_code == 0
