"""Earlier revisions of a stack, and whether a saved plan still holds."""

from __future__ import annotations

import msgspec

from orchestrator.errors import RefusedError
from orchestrator.planning.state import Plan
from orchestrator.server.plan import Planner
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.server.state import ClusterState


async def earlier(state: ClusterState, name: str, revision: int) -> StackRecord:
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


async def plan_rollback(state: ClusterState, planner: Planner, name: str, revision: int, options: UpOptions) -> Plan:
    """What a rollback to *revision* of stack *name* would do. Reads only. Raises RefusedError (404)."""
    found = await earlier(state, name, revision)
    return await planner.plan(found.stack, msgspec.structs.replace(options, remove_orphans=True))


def require_unmoved(saved: Plan, now: Plan) -> None:
    """Raises RefusedError (409) if *now*, made of the same stack and options as *saved*, is another plan."""
    if (now.basis, now.steps, now.desired) == (saved.basis, saved.steps, saved.desired):
        return
    moved = [s for s in now.steps if s not in saved.steps] or [s for s in saved.steps if s not in now.steps]
    first = f": {moved[0].action} {moved[0].kind} {moved[0].name} ({moved[0].reason})" if moved else ""
    raise RefusedError(
        f"the state moved since this plan was made (revision {saved.revision} then, {now.revision} now){first}: "
        "make a new plan",
        409,
    )
