"""A service's tasks exchanged for others a few at a time, and back again where that fails.

Source: Compose Specification, deploy.md, `update_config` and `rollback_config`. Stop-first exchanges a task in its place: no
new connection is sent to it, then it ends, then its successor begins. Start-first has as many spare tasks with the new
definition up before as are exchanged at once, and lets them go at the end: there are never fewer than before, and a broken
definition stops at the spares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from agent.manifest import Task
from orchestrator.errors import PystackError
from orchestrator.stackfile.model import Service, UpdateConfig


class Hands(Protocol):
    """What an update does to the cluster."""

    async def exchange(self, tasks: Sequence[Task]) -> None:
        """Put *tasks* in the place of those with their names, to which no new connection is sent any more; until they are
        `settled` none is sent to them either."""
        ...

    async def settled(self, tasks: Sequence[Task]) -> None: ...

    async def spare(self, service: str, count: int) -> list[Task]:
        """Have *count* tasks more of *service*, as if it had more replicas. Raises PystackError where that cannot be."""
        ...

    async def dismiss(self, tasks: Sequence[Task]) -> None: ...

    def warn(self, sentence: str) -> None: ...


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """*reasons* says why tasks failed, by name; *kept* are those that have the old definition, *reverted*: all have."""

    reasons: Mapping[str, str] = {}
    kept: tuple[str, ...] = ()
    reverted: bool = False


Lasts = Callable[[Task, float], Awaitable[str]]
"""Waits until a task is up and stays so for as many seconds: "" or why not."""


async def update(
    service: Service, before: Mapping[str, Task], after: Sequence[Task], hands: Hands, lasts: Lasts
) -> Outcome:
    """Exchange the tasks *before*, by name, for those *after*, in that order."""
    pace = service.update or UpdateConfig(parallelism=0)
    spares = await _spares(service, pace, len(after), hands)
    try:
        reasons = await _watched(spares, pace, lasts)
        done: list[Task] = []
        if not _exceeds(reasons, len(after), pace):
            done, more = await _exchange(after, pace, hands, lasts)
            reasons |= more
        if not _exceeds(reasons, len(after), pace):
            return Outcome(reasons=reasons)
        if pace.failure_action == "rollback":
            hands.warn(f"the update of {service.name} failed: it goes back to what it was")
            back = [before[t.name] for t in reversed(done)]
            _, more = await _exchange(back, service.rollback or UpdateConfig(), hands, lasts)
            return Outcome(reasons=reasons | more, kept=tuple(before), reverted=True)
        names = {t.name for t in done}
        return Outcome(reasons=reasons, kept=tuple(t.name for t in after if t.name not in names))
    finally:
        if spares:
            await hands.dismiss(spares)


async def _spares(service: Service, pace: UpdateConfig, count: int, hands: Hands) -> list[Task]:
    if pace.order != "start-first":
        return []
    try:
        return await hands.spare(service.name, min(pace.parallelism or count, count))
    except PystackError as error:
        first = str(error).splitlines()[0]
        hands.warn(f"{service.name} cannot have a task more for a while, so each is stopped before the next starts: {first}")
        return []


def _exceeds(reasons: Mapping[str, str], count: int, pace: UpdateConfig) -> bool:
    return pace.failure_action != "continue" and min(1, len(reasons) / count) > pace.max_failure_ratio


async def _watched(tasks: Sequence[Task], pace: UpdateConfig, lasts: Lasts) -> dict[str, str]:
    found = await asyncio.gather(*(lasts(t, pace.monitor_s) for t in tasks))
    return {t.name: reason for t, reason in zip(tasks, found, strict=True) if reason}


async def _exchange(
    tasks: Sequence[Task], pace: UpdateConfig, hands: Hands, lasts: Lasts
) -> tuple[list[Task], dict[str, str]]:
    """Those of *tasks* that were put in place, all unless too many failed; and why tasks failed."""
    size = pace.parallelism or len(tasks) or 1
    done: list[Task] = []
    reasons: dict[str, str] = {}
    for start in range(0, len(tasks), size):
        if start and pace.delay_s:
            await asyncio.sleep(pace.delay_s)
        batch = tasks[start : start + size]
        await hands.exchange(batch)
        done += batch
        reasons |= await _watched(batch, pace, lasts)
        await hands.settled(batch)
        if _exceeds(reasons, len(tasks), pace):
            break
    return done, reasons
