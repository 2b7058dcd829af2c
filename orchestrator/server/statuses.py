"""What the nodes last said of their tasks, and a way to wait until they say what is hoped for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from agent.manifest import TaskStatus

T = TypeVar("T")


class Statuses:
    def __init__(self) -> None:
        self.by_task: dict[str, TaskStatus] = {}
        self.listeners: set[Callable[[TaskStatus], None]] = set()
        self._waiters: set[asyncio.Event] = set()

    def update(self, status: TaskStatus) -> None:
        if self.by_task.get(status.task) == status:
            return
        if status.state == "pending" and not status.container and not status.error:
            self.by_task.pop(status.task, None)
        else:
            self.by_task[status.task] = status
        for listen in self.listeners:
            listen(status)
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
