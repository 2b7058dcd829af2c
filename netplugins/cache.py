"""The size of caches whose keys come and go."""

from __future__ import annotations

from functools import _lru_cache_wrapper
from typing import Any

SLACK = 256


def trim(cache: _lru_cache_wrapper[Any], used: int) -> None:
    """Clear *cache* where it is mostly stale; *used* is how many of its entries can be needed now.

    Those are computed again, which is less work than it took to fill the rest."""
    if is_mostly_stale(cache.cache_info().currsize, used):
        cache.cache_clear()


def is_mostly_stale(count: int, used: int) -> bool:
    """Whether *count* entries are more than twice the *used* ones and SLACK."""
    return count > 2 * used + SLACK
