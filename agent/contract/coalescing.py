"""Work that is shared by all callers that asked for it before it began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Coalescer:
    """Runs *work*, one run at a time. A caller waits for a run that began after its call; calls that come before a run begins
    share it, and its exception."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._next: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when a run that began after this call is done. Raises what the run raises; a caller that is cancelled leaves
        the run to the others."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        await asyncio.shield(mine)

    async def _run(self) -> None:
        while self._next is not None:
            current, self._next = self._next, None
            try:
                await self._work()
            except asyncio.CancelledError:
                _let_go(current)
                raise
            except Exception as error:  # each caller gets it, of any kind
                if not current.done():
                    current.set_exception(error)
                    current.exception()  # a caller that was cancelled must not leave a warning
            else:
                _let_go(current)

    def close(self) -> None:
        """End the run that is going on; all callers return as if it were done."""
        if self._runner:
            self._runner.cancel()
        if self._next:
            _let_go(self._next)
            self._next = None

    async def drain(self) -> None:
        """Return when no run is going on."""
        if self._runner:
            await asyncio.gather(self._runner, return_exceptions=True)


def _let_go(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
