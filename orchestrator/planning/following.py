"""Which tasks follow others: those that ask for it in depends_on, and those that have namespaces or mounts of a container that
is recreated. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import msgspec

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning import graph
from orchestrator.planning.state import Step
from orchestrator.stackfile.model import Stack


class Following:
    """Takes each step in the order in which services depend on each other."""

    def __init__(self, stack: Stack) -> None:
        self._services = {s.name: s for s in stack.services}
        self._recreated: set[str] = set()
        self._restarted: set[str] = set()

    def note(self, step: Step, service: str, *, known: bool) -> None:
        """*step* is for a task of *service*, which was *known* before."""
        if step.action in ("replace", "create"):
            self._recreated.add(service)
        if step.action in ("replace", "update") or (step.action == "create" and known):
            self._restarted.add(service)

    def step(self, task: Task, old: Task | None, status: TaskStatus | None) -> tuple[Step, Task] | None:
        """The step for *task*, of which nothing changed, and what it becomes; None where it follows nobody."""
        one = self._services[task.service]
        if old is None or old.desired != "running":
            return None
        reason = follows = ""
        asked = [d.service for d in one.depends_on if graph.restarts_with(one, d) and d.service in self._restarted]
        if asked:
            reason = f"restarts with {asked[0]}"
        elif status is not None and status.state in ("running", "paused", "restarting", "starting"):
            shared = {name: what for name, what in graph.owners(one).items() if name in self._recreated}
            reason = next((f"restarts with {name}: it has its {what}" for name, what in shared.items()), "")
            follows = next(iter(shared), "")
        if not reason:
            return None
        step = Step(
            action="update", kind="task", name=task.name, node=old.node, cause="followed", reason=reason, follows=follows
        )
        return step, msgspec.structs.replace(old, generation=old.generation + 1)


def missing_owners(stack: Stack, only: Set[str], tasks: Sequence[Task], statuses: Mapping[str, TaskStatus]) -> list[str]:
    """What is wrong with bringing up *only* these services: whose namespaces or mounts they need, and who is not there."""
    there = {t.service for t in tasks if t.desired != "oneoff" and t.name in statuses and statuses[t.name].container}
    runs = {t.service for t in tasks if t.name in statuses and statuses[t.name].state in ("running", "paused")}
    return [
        f"{one.where}: {one.name} needs the container of {name} for its {what}, and "
        f"{'that does not run' if name in there else 'there is none'}: bring {name} up too, without --no-deps"
        for one in stack.services
        if one.name in only
        for name, what in graph.owners(one).items()
        if name not in only and name not in (there if what == "volumes" else runs)
    ]
