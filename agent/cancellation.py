"""What must run to its end though the one who waits for it has gone away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*, which always runs to its end.

    Cleaning up needs this: a client that goes away cancels its request at whichever `await` that is at, so also at one in a
    `finally`, and what follows there would never run. `asyncio.shield` alone lets the work go on, but does not wait for it.
    Raises what *work* raises, or CancelledError, in both cases after the end."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled and not task.cancelled() and not task.exception():
        raise cancelled
    return task.result()
