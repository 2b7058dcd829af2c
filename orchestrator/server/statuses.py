"""The last status of every task, and a way to wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Set
from itertools import islice
from typing import TypeVar

import msgspec

from agent.contract.container import digest
from agent.contract.status import TaskStatus
from agent.contract.task import Task

T = TypeVar("T")
ASK_AGAIN_S = 0.1
MOST_AT_ONCE = 500
"""How many waiters are asked again at once, where nothing but time has passed."""


def serves(status: TaskStatus) -> bool:
    """Whether the task takes connections: it runs, is healthy if it has a healthcheck, and listens on its ports."""
    return may_serve(status) and status.listens


def may_serve(status: TaskStatus) -> bool:
    """Whether the task gets connections if no other task of its service serves: it may not listen yet."""
    return status.state == "running" and status.health in ("", "healthy")


def is_removed(status: TaskStatus) -> bool:
    """Whether a node says that it has removed the task: it is pending, without container and error."""
    return status.state == "pending" and not status.container and not status.error


class Statuses:
    """Statuses by the names of their tasks. *listeners* are called with each change."""

    def __init__(self) -> None:
        self.by_task: dict[str, TaskStatus] = {}
        self.changes = 0
        """How often `by_task` changed."""
        self.nodes: dict[str, str] = {}
        """The node that reported the last status of a task."""
        self.listeners: set[Callable[[TaskStatus], None]] = set()
        # dicts for their order, which is then the same again
        self._waiters: dict[asyncio.Event, None] = {}
        self._of_all: dict[asyncio.Event, None] = {}
        self._of: dict[str, dict[asyncio.Event, None]] = {}
        """Waiters for any change, and for those of one task."""
        self._ticker: asyncio.TimerHandle | None = None

    def update(self, node: str, status: TaskStatus) -> None:
        """Take in what *node* reports."""
        if self.by_task.get(status.task) == status:
            return
        if is_removed(status):
            if self.nodes.get(status.task, node) != node:
                return  # removed from its old node; its new node reports it now
            self.by_task.pop(status.task, None)
            self.nodes.pop(status.task, None)
        else:
            self.by_task[status.task] = status
            self.nodes[status.task] = node
        self.changes += 1
        for listen in self.listeners:
            listen(status)
        self._wake_for(status.task)

    def outdate(self, tasks: Iterable[Task]) -> None:
        """*tasks* are to be delivered: why another definition, or an earlier start, of them failed says nothing of these. No
        more does what a node says that had one of them before."""
        tasks = list(tasks)
        self.forget({t.name for t in tasks if self.nodes.get(t.name, t.node) != t.node})
        for task in tasks:
            status = self.by_task.get(task.name)
            if status and status.error and (status.digest, status.generation) != (digest(task.container), task.generation):
                self.changes += 1
                state = "pending" if status.state == "failed" else status.state
                self.by_task[task.name] = msgspec.structs.replace(status, error="", state=state)

    def forget(self, tasks: Set[str]) -> None:
        """Drop the statuses of *tasks*: no node will report them any more."""
        for task in tasks & self.by_task.keys():
            self.changes += 1
            self.by_task.pop(task, None)
            self.nodes.pop(task, None)

    def wake(self) -> None:
        """Have every `until` ask again: something changed that its answer may depend on."""
        for event in self._waiters:
            event.set()

    def _wake_for(self, task: str) -> None:
        for event in (*self._of_all, *self._of.get(task, ())):
            event.set()

    def _ask_again(self) -> None:
        """Wake the waiters as time has passed: of many, those that have not been woken for the longest."""
        self._ticker = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._ask_again) if self._waiters else None
        for event in list(islice(self._waiters, MOST_AT_ONCE)):
            del self._waiters[event]
            self._waiters[event] = None
            event.set()

    async def until(self, answer: Callable[[], T | None], *, within_s: float | None = None, of: str = "") -> T:
        """Call *answer* after each change, or each change of the task *of*, and every ASK_AGAIN_S as it may depend on the time,
        until it returns something but None; return that. Raises TimeoutError after *within_s* seconds."""
        event = asyncio.Event()
        mine = self._of.setdefault(of, {}) if of else self._of_all
        self._waiters[event] = mine[event] = None
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._ask_again)
        try:
            async with asyncio.timeout(within_s):
                while (found := answer()) is None:
                    await event.wait()
                    event.clear()
                return found
        except TimeoutError:
            if (found := answer()) is None:  # it may have come true in the moment in which the time was up
                raise
            return found
        finally:
            del self._waiters[event], mine[event]
            if of and not mine:
                self._of.pop(of, None)
