"""What is remembered of things that come and go: no more than there is use for."""

from __future__ import annotations

from functools import _lru_cache_wrapper
from typing import Any

SLACK = 256


def trim(cache: _lru_cache_wrapper[Any], used: int) -> None:
    """Forget all of *cache* when most of it must be about what is gone; *used* is how much of it can be asked for now.

    What is used is made anew then, which is less work than it took to fill the rest."""
    if is_mostly_stale(cache.cache_info().currsize, used):
        cache.cache_clear()


def is_mostly_stale(count: int, used: int) -> bool:
    return count > 2 * used + SLACK
