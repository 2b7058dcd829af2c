"""Who changes a stack now, and who waits for it: one at a time, said to those who wait, and the newest wish goes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.errors import RefusedError
from orchestrator.server.events import Emit, WarningEvent, ignore


class Change:
    """One that holds the lock, or waits for it: what it does (*verb*), and the task that does it."""

    def __init__(self, verb: str, task: asyncio.Task[Any]) -> None:
        self.verb = verb
        self.task = task
        self.begun = time.monotonic()
        self.given_up_for = ""
        """The verb that it was given up for, "" if it was not."""


class ChangeLock:
    """The lock of *what*, such as `stack web`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = asyncio.Lock()
        self._changes: list[Change] = []
        """The one that holds the lock, then those that wait for it, in their order."""

    @asynccontextmanager
    async def hold(self, verb: str, emit: Emit = ignore, *, instead_of: str = "") -> AsyncIterator[None]:
        """Hold the lock. Whoever must wait is told for whom; with *instead_of*, changes of that verb are given up first.

        Raises RefusedError (409) where another change had this one given up."""
        task = asyncio.current_task()
        assert task
        own = Change(verb, task)
        if self._changes:
            emit(WarningEvent(message=self._make_room(verb, instead_of)))
        self._changes.append(own)
        try:
            async with self._lock:
                yield
        except asyncio.CancelledError:
            if not own.given_up_for:
                raise
            task.uncancel()
            message = f"{self._what}: `{own.given_up_for}` came meanwhile, so this `{verb}` was given up"
            raise RefusedError(message, 409) from None
        finally:
            self._changes.remove(own)

    def _make_room(self, verb: str, instead_of: str) -> str:
        """Give up the changes that *verb* is wanted instead of. Returns the sentence for who waits."""
        first = self._changes[0]
        age = time.monotonic() - first.begun
        for one in self._changes:
            if one.verb == instead_of and not one.given_up_for:
                one.given_up_for = verb
                one.task.cancel()
        if first.given_up_for:
            return f"{self._what}: its `{first.verb}`, which began {age:.0f} s ago, is given up for this `{verb}`"
        return f"{self._what}: this `{verb}` waits for a `{first.verb}` that began {age:.0f} s ago"
