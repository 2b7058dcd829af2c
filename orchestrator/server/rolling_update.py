"""The rolling update of a service: replaces its tasks a few at a time, and rolls back if that fails.

Source: Compose Specification, deploy.md, `update_config` and `rollback_config`. Stop-first drains a task, stops it and starts
its successor in its place. Start-first starts surge tasks with the new definition first, as many as are replaced at once, and
removes them at the end: the service never has fewer tasks than before, and a broken definition fails in the surge tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError, UndeliveredError
from orchestrator.server.traffic import Traffic
from orchestrator.stackfile.model import Service, UpdateConfig
from orchestrator.stackfile.workloads import AbortOn, DeployHook


class UpdateActions(Protocol):
    """The effects of an update on the cluster."""

    async def exchange(self, tasks: Sequence[Task]) -> None:
        """Drain the tasks that have the names of *tasks*, then replace them. The new ones stay drained until `mark_ready`."""
        ...

    async def mark_ready(self, tasks: Sequence[Task]) -> None:
        """Let new connections go to *tasks* again."""
        ...

    async def surge(self, service: str, count: int, share: float = -1.0) -> list[Task]:
        """Have *count* more tasks of *service*, as if it had more replicas, with that *share* of its connections. Returns all
        of them. Raises PystackError if no node can take them, UndeliveredError if one that should does not."""
        ...

    async def weigh(self, tasks: Sequence[Task], share: float) -> None:
        """Give *tasks*, which `surge` started, another share of their service's connections."""
        ...

    async def hold(self, seconds: float, phase: str, down: Callable[[], str | None]) -> str:
        """Stay at *phase* for that long, or until somebody promotes the rollout. Returns what *down* does if that is not None
        meanwhile, else ""."""
        ...

    def observed(self, limits: AbortOn) -> AbstractAsyncContextManager[Traffic]:
        """See the requests meanwhile, to hold them against *limits*."""
        ...

    async def analyse(self, service: Service, hook: DeployHook) -> str:
        """Run *hook* beside the tasks of *service*. Returns "", or the reason why it failed."""
        ...

    async def remove_surge(self, tasks: Sequence[Task]) -> None:
        """Drain and remove the tasks that `surge` started."""
        ...

    async def checkpoint(self, done: int, total: int) -> None:
        """*done* of *total* tasks are exchanged. Raises what ends the update here."""
        ...

    def warn(self, sentence: str) -> None:
        """Report *sentence* to the user."""
        ...


class UpdateOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """*reasons* maps the names of failed tasks to the causes. *kept* names the tasks that still have the old definition;
    *reverted* is true if a rollback gave it back to all of them."""

    reasons: Mapping[str, str] = {}
    kept: tuple[str, ...] = ()
    reverted: bool = False


WaitStable = Callable[[Task, float], Awaitable[str]]
"""Waits until a task is up and stays up for that many seconds. Returns "", or the reason why it did not."""


async def update(
    service: Service, before: Mapping[str, Task], after: Sequence[Task], actions: UpdateActions, wait_stable: WaitStable
) -> UpdateOutcome:
    """Replace the tasks *before*, by name, with those *after*, in the order of *after*."""
    pace = service.update or UpdateConfig(parallelism=0)
    surge = await _surge(service, pace, len(after), actions)
    try:
        reasons = await watch_all(surge, pace, wait_stable)
        done: list[Task] = []
        if not _exceeds(reasons, len(after), pace):
            done, more = await exchange_all(after, pace, actions, wait_stable)
            reasons |= more
        if not _exceeds(reasons, len(after), pace):
            return UpdateOutcome(reasons=reasons)
        if pace.failure_action == "rollback":
            actions.warn(f"the update of {service.name} failed: it goes back to what it was")
            back = [before[t.name] for t in reversed(done)]
            _, more = await exchange_all(back, service.rollback or UpdateConfig(), actions, wait_stable)
            return UpdateOutcome(reasons=reasons | more, kept=tuple(before), reverted=True)
        names = {t.name for t in done}
        return UpdateOutcome(reasons=reasons, kept=tuple(t.name for t in after if t.name not in names))
    finally:
        if surge:
            await actions.remove_surge(surge)


async def _surge(service: Service, pace: UpdateConfig, count: int, actions: UpdateActions) -> list[Task]:
    if pace.order != "start-first":
        return []
    try:
        return await actions.surge(service.name, min(pace.parallelism or count, count))
    except UndeliveredError:
        raise  # a node that cannot take a spare cannot take the others either
    except PystackError as error:
        first = str(error).splitlines()[0]
        actions.warn(f"{service.name} cannot have a task more for a while, so each is stopped before the next starts: {first}")
        return []


def _exceeds(reasons: Mapping[str, str], count: int, pace: UpdateConfig) -> bool:
    return pace.failure_action != "continue" and min(1, len(reasons) / count) > pace.max_failure_ratio


async def watch_all(tasks: Sequence[Task], pace: UpdateConfig, wait_stable: WaitStable) -> dict[str, str]:
    """Wait until all of *tasks* are stable. Returns the reasons of those that are not, by name."""
    found = await asyncio.gather(*(wait_stable(t, pace.monitor_s) for t in tasks))
    return {t.name: reason for t, reason in zip(tasks, found, strict=True) if reason}


async def exchange_all(
    tasks: Sequence[Task], pace: UpdateConfig, actions: UpdateActions, wait_stable: WaitStable
) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks that were replaced (all, unless too many failed), and the reasons of those that failed, by name."""
    size = pace.parallelism or len(tasks) or 1
    done: list[Task] = []
    reasons: dict[str, str] = {}
    for start in range(0, len(tasks), size):
        if start:
            await actions.checkpoint(start, len(tasks))
            await asyncio.sleep(pace.delay_s)
        batch = tasks[start : start + size]
        try:
            await actions.exchange(batch)
            done += batch
            reasons |= await watch_all(batch, pace, wait_stable)
        finally:  # an update that is cut off here must not leave running tasks without connections
            await actions.mark_ready(batch)
        if _exceeds(reasons, len(tasks), pace):
            break
    return done, reasons
