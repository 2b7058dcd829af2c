"""Times as images and the Engine API have them."""

from __future__ import annotations

import datetime


def stamp(when: float) -> str:
    """Seconds since the epoch, in RFC 3339."""
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
