"""Revisions of a stack: what it was, what leads back there, and plans that were saved."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.errors import RefusedError
from orchestrator.planning.state import Plan
from orchestrator.server.records import SavedPlan, StackRecord, UpOptions
from orchestrator.server.rollout import Failure
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Delete, Op, Put

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller

HISTORY = 100
"""Revisions of a stack that are kept."""


async def history(controller: Controller, name: str) -> list[StackRecord]:
    """Every revision of a stack that is kept, the oldest first; also of one that is down."""
    entries = await controller.store.scan(f"history/{name}/")
    return [msgspec.json.decode(e.value, type=StackRecord) for e in entries]


async def next_of(controller: Controller, stack: Stack, options: UpOptions) -> tuple[StackRecord, list[Op]]:
    """*stack* as the next revision, and what writes it."""
    old = controller.stacks.get(stack.name)
    last = old.revision if old else max((r.revision for r in await history(controller, stack.name)), default=0)
    record = StackRecord(
        stack=stack, revision=last + 1, user=options.user, message=options.message, source=options.source,
        updated=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    raw = msgspec.json.encode(record)
    operations: list[Op] = [
        Put(f"stacks/{stack.name}", raw), Put(f"history/{stack.name}/{record.revision:08d}", raw),
    ]
    if record.revision > HISTORY:
        operations.append(Delete(f"history/{stack.name}/{record.revision - HISTORY:08d}"))
    return record, operations


async def _earlier(controller: Controller, name: str, revision: int) -> StackRecord:
    """Revision *revision* of a stack; 0 is the one before the present. Raises RefusedError."""
    known = await history(controller, name)
    if not known:
        raise RefusedError(f"stack {name} has no history", 404)
    present = controller.stacks[name].revision if name in controller.stacks else known[-1].revision + 1
    wanted = revision or max((r.revision for r in known if r.revision < present), default=0)
    found = next((r for r in known if r.revision == wanted), None)
    if found is None:
        there = ", ".join(str(r.revision) for r in known)
        raise RefusedError(f"stack {name} has no revision {wanted or 'before this one'}; there is: {there}", 404)
    return found


async def rollback(controller: Controller, name: str, revision: int, options: UpOptions, tell: Any) -> list[Failure]:
    """Apply an earlier *revision* again, as a new one; 0 is the one before the present."""
    found = await _earlier(controller, name, revision)
    message = options.message or f"rollback to revision {found.revision}"
    # the stack as a whole: what the later revision added goes too
    return await controller.up(found.stack, msgspec.structs.replace(options, message=message, remove_orphans=True), tell)


async def plan_rollback(controller: Controller, name: str, revision: int, options: UpOptions) -> Plan:
    """What `rollback` would do. Reads only."""
    found = await _earlier(controller, name, revision)
    return await controller.plan(found.stack, msgspec.structs.replace(options, remove_orphans=True))


async def apply(controller: Controller, saved: SavedPlan, tell: Any) -> list[Failure]:
    """Do exactly what *saved* says. Raises RefusedError where the same question has another answer by now."""
    async with controller.lock(saved.stack.name):
        now = await controller.plan(saved.stack, saved.options)
        if (now.basis, now.steps, now.desired) != (saved.plan.basis, saved.plan.steps, saved.plan.desired):
            moved = [s for s in now.steps if s not in saved.plan.steps]
            moved = moved or [s for s in saved.plan.steps if s not in now.steps]
            first = f": {moved[0].action} {moved[0].kind} {moved[0].name} ({moved[0].reason})" if moved else ""
            raise RefusedError(
                f"the state moved since this plan was made (revision {saved.plan.revision} then, {now.revision} now)"
                f"{first}: make a new plan", 409
            )
        await controller.contents.keep(saved.stack.contents)
        for step in now.changes:
            tell({"event": "step", **msgspec.to_builtins(step)})
        return await controller.carry_out(controller.contents.with_digests(saved.stack), now, saved.options, tell)
