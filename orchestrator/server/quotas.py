"""Holds stacks to the quotas of config.yml."""

from __future__ import annotations

from collections.abc import Sequence

from agent.contract.container import Container
from agent.contract.task import Task
from agent.contract.volume import Volume
from orchestrator.errors import RefusedError
from orchestrator.planning.quotas import Quota, problems
from orchestrator.server.state import ClusterState
from orchestrator.stackfile.model import Stack


class QuotaCheck:
    """Compares what stacks ask for with what there is of the others."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self.quotas: tuple[Quota, ...] = ()

    def problems(self, stack: Stack, tasks: Sequence[Task], volumes: Sequence[Volume] = ()) -> list[str]:
        """Why *stack*, with *tasks* as its planned ones and *volumes* beside those that it has, is more than is allowed, one
        sentence each with its place."""
        if not any(q.covers(stack.name) for q in self.quotas):
            return []
        state = self._state
        mine = [*tasks, *(t for t in state.tasks.values() if t.stack == stack.name and not t.planned)]
        others = [t for t in state.tasks.values() if t.stack != stack.name]
        services = {(n, s.name): s for n, r in state.stacks.items() for s in r.stack.services}
        there = state.volumes | {v.name: v for v in volumes}
        return problems(self.quotas, stack, mine, others, services, [*there.values()])

    def against_more(self, stack: Stack, service: str, count: int = 1) -> list[str]:
        """Why *count* more tasks of *service* are too much."""
        tasks = [t for t in self._state.tasks.values() if t.stack == stack.name and t.planned]
        more = Task(name="", stack=stack.name, service=service, container=Container(image=""))
        return self.problems(stack, [*tasks, *[more] * count])

    def require_more(self, stack: Stack, service: str, count: int = 1) -> None:
        """Raises RefusedError (409) where *count* more tasks of *service* are too much: of a run, or a one-off container."""
        if against := self.against_more(stack, service, count):
            raise RefusedError("\n".join(against), 409)
