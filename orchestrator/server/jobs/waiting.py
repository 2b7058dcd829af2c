"""Waits for the ends of jobs, as `up` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.contract.task import Task
from orchestrator.planning.jobs import end_of
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Failure
from orchestrator.server.jobs.book import RunBook

LOOP_LIMIT = 5
"""How often a task that is started again and again may have failed before nobody waits for it any more."""


class JobWaiter:
    """Waits for tasks of jobs. *moving*: tasks of a node that does not answer go to other nodes."""

    def __init__(self, dispatcher: Dispatcher, book: RunBook, *, moving: bool) -> None:
        self._dispatcher, self._book, self._moving = dispatcher, book, moving

    async def wait(self, tasks: Sequence[Task], timeout_s: float | None) -> list[Failure]:
        """Wait until *tasks* have ended, *timeout_s* seconds at most. Returns those that failed. One that is replaced or
        removed meanwhile is not waited for."""
        return [failure for failure in await asyncio.gather(*(self._one(t, timeout_s) for t in tasks)) if failure]

    async def _one(self, task: Task, timeout_s: float | None) -> Failure | None:
        try:
            reason = await self._dispatcher.statuses.until(lambda: self._outcome(task), within_s=timeout_s, of=task.name)
        except TimeoutError:
            reason = f"has not ended after {timeout_s:g} s, and goes on"
        if not reason:
            return None
        status = self._dispatcher.statuses.by_task.get(task.name)
        return Failure(task=task.name, where=task.where, reason=reason, exit_code=status.exit_code if status else None)

    def _outcome(self, task: Task) -> str | None:
        """None while *task* goes on, "" once it has ended well, else why nobody waits for it any more."""
        now = self._dispatcher.state.tasks.get(task.name)
        if now is None or (now.generation, now.container) != (task.generation, task.container):
            return "another change of the stack took its place"
        status = self._dispatcher.statuses.by_task.get(task.name)
        if (end := end_of(now, status)) is not None:
            return end
        if now.desired == "stopped":
            runs = self._book.of(task.stack, task.service)
            return (runs[-1].reason if runs and runs[-1].state == "failed" else "") or "was stopped before it had ended"
        if status and status.state == "restarting" and status.restarts >= LOOP_LIMIT:
            return f"exited with {status.exit_code} and was restarted {status.restarts} times: it goes on being tried"
        silent = self._dispatcher.unreachable_reason(now)
        return silent if silent and not self._moving else None
