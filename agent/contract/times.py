"""Times as text: RFC 3339, in UTC, with a Z at the end."""

from __future__ import annotations

import datetime
from typing import Literal

Digits = Literal["seconds", "milliseconds", "microseconds"]


def timestamp(seconds: float | None = None, digits: Digits = "microseconds") -> str:
    """*seconds* since 1970 as text, None for now."""
    zone = datetime.UTC
    moment = datetime.datetime.now(zone) if seconds is None else datetime.datetime.fromtimestamp(seconds, zone)
    return moment.isoformat(timespec=digits).replace("+00:00", "Z")


def timestamp_if_set(seconds: float, digits: Digits = "seconds") -> str:
    """*seconds* since 1970 as text, "" for 0."""
    return timestamp(seconds, digits) if seconds else ""


def seconds_of(text: str) -> float:
    """The seconds since 1970 of a time by RFC 3339; one without a zone is in UTC. Raises ValueError."""
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
