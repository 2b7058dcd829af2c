"""The last status of every task, and a way to wait for a change."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Set
from typing import TypeVar

import msgspec

from agent.contract.container import digest
from agent.contract.status import TaskStatus
from agent.contract.task import Task

T = TypeVar("T")
ASK_AGAIN_S = 0.1


def serves(status: TaskStatus) -> bool:
    """Whether the task takes connections: it runs, is healthy if it has a healthcheck, and listens on its ports."""
    return may_serve(status) and status.listens


def may_serve(status: TaskStatus) -> bool:
    """Whether the task gets connections if no other task of its service serves: it may not listen yet."""
    return status.state == "running" and status.health in ("", "healthy")


class Statuses:
    """Statuses by the names of their tasks. *listeners* are called with each change."""

    def __init__(self) -> None:
        self.by_task: dict[str, TaskStatus] = {}
        self.nodes: dict[str, str] = {}
        """The node that reported the last status of a task."""
        self.listeners: set[Callable[[TaskStatus], None]] = set()
        self._waiters: dict[asyncio.Event, None] = {}  # a dict for its order, which is then the same again

    def update(self, node: str, status: TaskStatus) -> None:
        """Take in what *node* reports. A pending task without container and error is one that the node has removed."""
        if self.by_task.get(status.task) == status:
            return
        if status.state == "pending" and not status.container and not status.error:
            if self.nodes.get(status.task, node) != node:
                return  # removed from its old node; its new node reports it now
            self.by_task.pop(status.task, None)
            self.nodes.pop(status.task, None)
        else:
            self.by_task[status.task] = status
            self.nodes[status.task] = node
        for listen in self.listeners:
            listen(status)
        self.wake()

    def outdate(self, tasks: Iterable[Task]) -> None:
        """*tasks* are to be delivered: why another definition, or an earlier start, of them failed says nothing of these."""
        for task in tasks:
            status = self.by_task.get(task.name)
            if status and status.error and (status.digest, status.generation) != (digest(task.container), task.generation):
                state = "pending" if status.state == "failed" else status.state
                self.by_task[task.name] = msgspec.structs.replace(status, error="", state=state)

    def forget(self, tasks: Set[str]) -> None:
        """Drop the statuses of *tasks*: no node will report them any more."""
        for task in tasks:
            self.by_task.pop(task, None)
            self.nodes.pop(task, None)

    def wake(self) -> None:
        """Have every `until` ask again: something changed that its answer may depend on."""
        for event in self._waiters:
            event.set()

    async def until(self, answer: Callable[[], T | None], *, within_s: float | None = None) -> T:
        """Call *answer* after each change, and every ASK_AGAIN_S as it may depend on the time, until it returns something but
        None; return that. Raises TimeoutError after *within_s* seconds."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        deadline = math.inf if within_s is None else loop.time() + within_s
        self._waiters[event] = None
        try:
            while True:
                event.clear()
                found = answer()
                if found is not None:
                    return found
                if loop.time() >= deadline:
                    raise TimeoutError
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(min(loop.time() + ASK_AGAIN_S, deadline)):
                        await event.wait()
        finally:
            del self._waiters[event]
