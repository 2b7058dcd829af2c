"""Gives memory back to the kernel soon after a large request.

glibc keeps freed memory for the next request of that size; here that may be a stack of a thousand services, once a week.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

EVERY_S = 10.0
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
LARGE = 1 << 16


def limit_malloc_arenas() -> None:
    """Restore the default thresholds of garbage collection, which the command line raises for commands that end soon; use one
    malloc arena, since the GIL serialises allocation anyway; and allocate large blocks by mmap, so that a free returns them.
    Call before there is a second thread. Source: mallopt(3), which other C libraries lack."""
    gc.set_threshold(700, 10, 10)
    if option := getattr(ctypes.CDLL(None), "mallopt", None):
        option(M_ARENA_MAX, 1)
        option(M_MMAP_THRESHOLD, LARGE)


async def trim_heap_periodically() -> None:
    """Until cancelled. One call takes 0.3 ms. Source: malloc_trim(3), which other C libraries lack."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim:
        await asyncio.sleep(EVERY_S)
        trim(0)
