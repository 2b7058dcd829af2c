"""Who changes a stack now, and who waits for it: one at a time, said to those who wait, and the newest wish goes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.errors import RefusedError
from orchestrator.server.events import Emit, WarningEvent, ignore


class GivenUpError(RefusedError):
    """A change was given up for another one, whose *verb* it names."""

    def __init__(self, what: str, own: str, verb: str) -> None:
        super().__init__(f"{what}: `{verb}` came meanwhile, so this `{own}` was given up", 409)
        self.verb = verb


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

    @property
    def busy(self) -> bool:
        """Whether a change holds the lock or waits for it."""
        return bool(self._changes)

    def give_up(self, verbs: Collection[str], instead: str) -> None:
        """Give up the changes of *verbs* for the change *instead*, which takes the lock later, or not at all."""
        for one in self._changes:
            if one.verb in verbs and not one.given_up_for:
                one.given_up_for = instead
                one.task.cancel()

    @asynccontextmanager
    async def hold(self, verb: str, emit: Emit = ignore, *, instead_of: Collection[str] = ()) -> AsyncIterator[None]:
        """Hold the lock. A caller that waits gets an event that says why; changes by verbs *instead_of* are given up first.

        Raises GivenUpError where another change had this one given up."""
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
            raise GivenUpError(self._what, verb, own.given_up_for) from None
        finally:
            self._changes.remove(own)

    def _make_room(self, verb: str, instead_of: Collection[str]) -> str:
        """Give up the changes that *verb* is wanted instead of. Returns the sentence for who waits."""
        first = self._changes[0]
        age = time.monotonic() - first.begun
        self.give_up(instead_of, verb)
        if first.given_up_for:
            return f"{self._what}: its `{first.verb}`, which began {age:.0f} s ago, is given up for this `{verb}`"
        return f"{self._what}: this `{verb}` waits for a `{first.verb}` that began {age:.0f} s ago"
