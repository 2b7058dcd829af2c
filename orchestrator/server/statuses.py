"""What the nodes last said of their tasks, and a way to wait until they say what is hoped for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import TypeVar

from agent.manifest import TaskStatus

T = TypeVar("T")


def serves(status: TaskStatus) -> bool:
    """The task can take connections: it runs, is healthy where it has a check, and listens where it is to."""
    return may_serve(status) and status.listens


def may_serve(status: TaskStatus) -> bool:
    """The task is to take connections where no other can."""
    return status.state == "running" and status.health in ("", "healthy")


class Statuses:
    def __init__(self) -> None:
        self.by_task: dict[str, TaskStatus] = {}
        self.nodes: dict[str, str] = {}
        """Which node the last word on a task came from."""
        self.listeners: set[Callable[[TaskStatus], None]] = set()
        self._waiters: set[asyncio.Event] = set()

    def update(self, node: str, status: TaskStatus) -> None:
        if self.by_task.get(status.task) == status:
            return
        if status.state == "pending" and not status.container and not status.error:
            if self.nodes.get(status.task, node) != node:
                return  # gone from where it was: what it is now is for its new node to say
            self.by_task.pop(status.task, None)
            self.nodes.pop(status.task, None)
        else:
            self.by_task[status.task] = status
            self.nodes[status.task] = node
        for listen in self.listeners:
            listen(status)
        self.wake()

    def forget(self, tasks: Set[str]) -> None:
        """Nobody will say any more what these are."""
        for task in tasks:
            self.by_task.pop(task, None)
            self.nodes.pop(task, None)

    def wake(self) -> None:
        """Something changed that answers may depend on."""
        for event in self._waiters:
            event.set()

    async def until(self, answer: Callable[[], T | None], *, within_s: float | None = None) -> T:
        """What *answer* says once it says something; asked again after each change, and every 0.1 s where it depends
        on time. Raises TimeoutError."""
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    event.clear()
                    found = answer()
                    if found is not None:
                        return found
                    try:
                        await asyncio.wait_for(event.wait(), 0.1)
                    except TimeoutError:
                        continue
        finally:
            self._waiters.discard(event)
