"""The elements of shapes of request bodies. Source: Docker Engine API v1.48, definitions."""

from __future__ import annotations

from typing import Any, NamedTuple


class Map(NamedTuple):
    """An object with any keys, and values of one shape."""

    of: Any


class Range(NamedTuple):
    """A whole number from *low* to *high*."""

    low: int
    high: int


WHOLE = Range(0, (1 << 63) - 1)
"""A number of bytes or the like."""
