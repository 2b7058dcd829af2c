"""Earlier revisions of a stack, and plans that were saved."""

from __future__ import annotations

from typing import Protocol

import msgspec

from orchestrator.errors import RefusedError
from orchestrator.planning.state import Plan
from orchestrator.server.events import Emit, Failure
from orchestrator.server.execute import PlanExecutor
from orchestrator.server.plan import Planner
from orchestrator.server.records import SavedPlan, StackRecord, UpOptions
from orchestrator.server.rollout_control import RolloutControl
from orchestrator.server.state import ClusterState
from orchestrator.stackfile.model import Stack


class Executor(Protocol):
    """What makes a stack true: a PlanExecutor, or what keeps records of its rollouts."""

    async def up(self, stack: Stack, options: UpOptions, emit: Emit) -> list[Failure]:
        """Make *stack* true. Returns the tasks that failed."""
        ...


async def _earlier(state: ClusterState, name: str, revision: int) -> StackRecord:
    """Revision *revision* of stack *name*; 0 is the one before the present. Raises RefusedError (404)."""
    known = await state.history(name)
    if not known:
        raise RefusedError(f"stack {name} has no history", 404)
    present = state.stacks[name].revision if name in state.stacks else known[-1].revision + 1
    wanted = revision or max((r.revision for r in known if r.revision < present), default=0)
    found = next((r for r in known if r.revision == wanted), None)
    if found is None:
        there = ", ".join(str(r.revision) for r in known)
        raise RefusedError(f"stack {name} has no revision {wanted or 'before this one'}; there is: {there}", 404)
    return found


async def rollback(
    state: ClusterState, executor: Executor, name: str, revision: int, options: UpOptions, emit: Emit
) -> list[Failure]:
    """Apply an earlier *revision* of stack *name* again, as a new revision; 0 is the one before the present."""
    found = await _earlier(state, name, revision)
    message = options.message or f"rollback to revision {found.revision}"
    # the stack as a whole: services that a later revision added are removed too
    return await executor.up(found.stack, msgspec.structs.replace(options, message=message, remove_orphans=True), emit)


async def plan_rollback(state: ClusterState, planner: Planner, name: str, revision: int, options: UpOptions) -> Plan:
    """What `rollback` would do. Reads only."""
    found = await _earlier(state, name, revision)
    return await planner.plan(found.stack, msgspec.structs.replace(options, remove_orphans=True))


async def apply(state: ClusterState, executor: PlanExecutor, saved: SavedPlan, emit: Emit) -> list[Failure]:
    """Do exactly what *saved* says. Raises RefusedError (409) if the same stack and options give another plan by now."""
    async with state.lock(f"stack {saved.stack.name}").hold("apply", emit), executor.allocated(saved.stack.name) as held:
        now = await executor.planner.plan(saved.stack, saved.options)
        if (now.basis, now.steps, now.desired) != (saved.plan.basis, saved.plan.steps, saved.plan.desired):
            moved = [s for s in now.steps if s not in saved.plan.steps]
            moved = moved or [s for s in saved.plan.steps if s not in now.steps]
            first = f": {moved[0].action} {moved[0].kind} {moved[0].name} ({moved[0].reason})" if moved else ""
            raise RefusedError(
                f"the state moved since this plan was made (revision {saved.plan.revision} then, {now.revision} now)"
                f"{first}: make a new plan",
                409,
            )
        failures = await executor.execute_plan(saved.stack, now, saved.options, emit, held, RolloutControl())
    return await executor.finish_jobs(saved.stack, saved.options, emit, failures)
