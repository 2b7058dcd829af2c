"""Gives nodes that can have tasks again those of services of mode global.

Such a service has a task on each node that may have one. A drain takes it away; a node that is added, activated, or gets other
labels lacks it. What is there is compared with what placement says whenever nodes have changed, so that any leader goes on.
Source: SwarmKit, global orchestrator; Kubernetes, DaemonSet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Set

from agent.contract.backoff import Backoff
from orchestrator.errors import PystackError
from orchestrator.placement.assign import is_eligible
from orchestrator.server.cluster import Cluster
from orchestrator.server.events import Emit, Failure, ignore
from orchestrator.server.inputs import Inputs
from orchestrator.server.state import ClusterState

POLL_INTERVAL_S = 1.0
RETRY_S, RETRY_MAX_S = 2.0, 120.0
"""How long after one that was not carried out it is tried again, at first and at last."""
Redeploy = Callable[[str, Emit], Awaitable[list[Failure]]]
log = logging.getLogger(__name__)


class GlobalTasks:
    """The loop; *redeploy* is that of the rollouts, and *is_paused* says which stacks somebody has paused."""

    def __init__(
        self, state: ClusterState, cluster: Cluster, inputs: Inputs, redeploy: Redeploy, is_paused: Callable[[str], bool]
    ) -> None:
        self._state, self._cluster, self._inputs = state, cluster, inputs
        self._redeploy, self._is_paused = redeploy, is_paused
        self._inactive: frozenset[str] = frozenset()
        self._activated: set[str] = set()
        """Nodes that were activated and not looked at since: there may be no other task of their services."""

    async def run(self) -> None:
        """Never returns."""
        seen: object = None
        pauses = Backoff(RETRY_S, RETRY_MAX_S)
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            self._look()
            # what others are about to place takes room: the next look knows it
            if self._busy() or (now := self._situation()) == seen:
                continue
            seen, activated = now, self._activated & self._cluster.ready
            self._activated -= activated
            for stack in sorted(self._state.stacks):
                # it may have been taken down meanwhile
                if stack not in self._state.stacks or self._is_paused(stack) or not self.lacking(stack, activated):
                    continue
                if not await self._bring(stack):  # another change of the stack came between, or a node went
                    seen, self._activated = None, self._activated | activated
            if seen is None:
                await asyncio.sleep(next(pauses))
            else:
                pauses.reset()

    def _look(self) -> None:
        inactive = frozenset(n for n, m in self._cluster.members.items() if m.node.availability != "active")
        self._activated = (self._activated | (self._inactive - inactive)) - inactive
        self._inactive = inactive

    def _situation(self) -> object:
        """What a service of mode global may get another node by."""
        nodes = [m.node for m in self._cluster.members.values() if m.ready]
        # a node that was drained and activated between two looks is as before, and its tasks are gone
        return [(n.name, n.availability, n.labels, n.taints) for n in nodes], frozenset(self._state.tasks)

    def _busy(self) -> bool:
        return any(self._state.lock(f"stack {s}").busy for s in self._state.stacks)

    def lacking(self, stack: str, activated: Set[str]) -> set[str]:
        """The nodes that lack a task of a service of mode global of *stack*. A service of which there is none at all was taken
        away by its user, unless the node is one of those that were just *activated*."""
        record, lacking = self._state.stacks[stack].stack, set[str]()
        for service in (s for s in record.services if s.mode == "global" and not s.schedule):
            there = {t.node for t in self._state.of_stack(stack).tasks if t.service == service.name}
            try:
                wanted = set(is_eligible(record, service, self._inputs.placement(stack)))
            except PystackError:  # no node suits it: there is nothing to give
                continue
            lacking |= (wanted - there) if there else (wanted & activated)
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
