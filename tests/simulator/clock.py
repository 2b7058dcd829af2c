"""An event loop whose time passes only when nothing is left to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

START = 1_700_000_000.0
"""The wall clock at virtual time 0, in seconds since 1970."""


class StalledError(Exception):
    """Nothing is left to do, and nobody waits for a time: a deadlock. Or too much was done in no time: a livelock."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting, lets *loop*'s time pass."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise StalledError("nothing is left to do")
            self.loop.advance(timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at time 0. Work for threads is done at once, in the loop's own."""

    TURNS_AT_ONCE = 200_000
    """How many turns of the loop may pass without any time."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._now = 0.0
        self._turns = 0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def wall(self) -> float:
        """Seconds since 1970."""
        return START + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._turns = 0 if seconds > 0 else self._turns + 1
        if self._turns > self.TURNS_AT_ONCE:
            raise StalledError("so much is done that no time passes")
        self._now += max(0.0, seconds)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future
