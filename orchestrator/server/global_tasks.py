"""Gives nodes that can have tasks again those of services of mode global.

Such a service has a task on each node that may have one. A drain takes it away; a node that is added, activated, or gets other
labels lacks it. What is there is compared with what placement says whenever nodes have changed, so that any leader goes on.
Source: SwarmKit, global orchestrator; Kubernetes, DaemonSet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec

from agent.contract.backoff import Backoff
from orchestrator.errors import PystackError
from orchestrator.placement.assign import is_eligible
from orchestrator.server.cluster import Cluster
from orchestrator.server.events import Emit, Failure, ignore
from orchestrator.server.inputs import Inputs
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import StoreError

POLL_INTERVAL_S = 1.0
RETRY_S, RETRY_MAX_S = 2.0, 120.0
"""How long after one that was not carried out it is tried again, at first and at last."""
Redeploy = Callable[[str, Emit], Awaitable[list[Failure]]]
log = logging.getLogger(__name__)


class _Situation(NamedTuple):
    """What a service of mode global may get another node by."""

    nodes: list[tuple[object, ...]]
    tasks: frozenset[str]
    paused: frozenset[str]


class GlobalTasks:
    """The loop; *redeploy* is that of the rollouts, and *is_paused* says which stacks somebody has paused."""

    def __init__(
        self, state: ClusterState, cluster: Cluster, inputs: Inputs, redeploy: Redeploy, is_paused: Callable[[str], bool]
    ) -> None:
        self._state, self._cluster, self._inputs = state, cluster, inputs
        self._redeploy, self._is_paused = redeploy, is_paused

    async def run(self) -> None:
        """Never returns."""
        seen, nodes, again_at = None, None, 0.0
        pauses, clock = Backoff(RETRY_S, RETRY_MAX_S), asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            # what others are about to place takes room: the next look knows it
            if self._busy() or (now := self._situation()) == seen:
                continue
            if now.nodes == nodes and clock() < again_at:
                continue
            emptied, brought, failed = self._emptied(), False, False
            for stack in sorted(self._state.stacks):
                if self._waits(stack):
                    brought |= await self._bring(stack)
                    failed |= self._waits(stack)  # another change of the stack came between, or a node went
            # only a situation in which nothing was lacking is one that needs no other look when it comes back
            seen = None if brought or failed else now
            if failed:
                nodes, again_at = now.nodes, clock() + next(pauses)
            else:
                nodes = None
                await self._forget(emptied)
                pauses.reset()

    def _waits(self, stack: str) -> bool:
        """Whether nodes lack tasks of *stack*, which may have been taken down meanwhile."""
        return stack in self._state.stacks and not self._is_paused(stack) and bool(self.lacking(stack))

    def _emptied(self) -> dict[str, tuple[str, ...]]:
        """What a drain took of the nodes that can have tasks again."""
        members = self._cluster.members.items()
        return {n: m.node.emptied for n, m in members if m.ready and m.node.availability == "active" and m.node.emptied}

    async def _forget(self, emptied: Mapping[str, tuple[str, ...]]) -> None:
        """The nodes have what they were *emptied* of, but for what belongs to stacks that are paused."""
        for name, services in emptied.items():
            member = self._cluster.members.get(name)
            if member is None or member.node.emptied != services:  # it was drained meanwhile
                continue
            paused = tuple(s for s in services if self._is_paused(s.partition("/")[0]))
            member.node = msgspec.structs.replace(member.node, emptied=paused)
            try:
                await self._cluster.save(member.node)
            except StoreError as error:  # the next leader looks at it once more
                log.warning("that node %s has its tasks again is not kept: %s", name, error)

    def _situation(self) -> _Situation:
        nodes = [m.node for m in self._cluster.members.values() if m.ready]
        return _Situation(
            nodes=[(n.name, n.availability, n.labels, n.taints) for n in nodes],
            tasks=frozenset(self._state.tasks),  # a node may be drained and activated between two looks
            paused=frozenset(s for s in self._state.stacks if self._is_paused(s)),
        )

    def _busy(self) -> bool:
        return any(self._state.lock(f"stack {s}").busy for s in self._state.stacks)

    def lacking(self, stack: str) -> set[str]:
        """The nodes that lack a task of a service of mode global of *stack*. A service of which there is none at all was taken
        away by its user, and not by a drain, unless the node is one that it was taken from."""
        record, lacking = self._state.stacks[stack].stack, set[str]()
        for service in (s for s in record.services if s.mode == "global" and not s.schedule):
            there = {t.node for t in self._state.of_stack(stack).tasks if t.service == service.name}
            try:
                wanted = set(is_eligible(record, service, self._inputs.placement(stack)))
            except PystackError:  # no node suits it: there is nothing to give
                continue
            members = self._cluster.members
            lacking |= {n for n in wanted - there if there or f"{stack}/{service.name}" in members[n].node.emptied}
        return lacking

    async def _bring(self, stack: str) -> bool:
        """Returns whether it was carried out, be it with tasks that failed."""
        try:
            if failures := await self._redeploy(stack, ignore):
                log.warning("tasks of stack %s failed on nodes that can have tasks now: %s", stack, failures[0].reason)
        except PystackError as error:
            log.warning("stack %s has no tasks yet on nodes that can have them: %s", stack, error)
            return False
        return True
