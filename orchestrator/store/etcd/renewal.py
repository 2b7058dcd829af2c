"""For how long a lease has not been renewed, as somebody else can tell who looks at its time to live. Pure.

etcd says that time in whole seconds, rounded down, and prolongs all leases when one of its members becomes its leader: an age
is therefore known only by the second, or by looks that follow each other closely. Two elections within CLOSE_S can hide a
renewal; who relies on the age must bear that. Source: etcd, server/lease/lessor.go.
"""

from __future__ import annotations

import math

import msgspec

CLOSE_S = 0.9
"""Looks that are closer than this miss no renewal: the time to live is that of a renewed lease for a second after it."""


class _Look(msgspec.Struct, frozen=True):
    asked: float
    ttl_s: int
    since: float


class RenewalAge:
    """What was seen of one lease."""

    def __init__(self) -> None:
        self._last: _Look | None = None

    def seen(self, asked: float, answered: float, granted_s: int, ttl_s: int) -> float:
        """The seconds for which the lease surely was not renewed. Of *granted_s* seconds, *ttl_s* were left at some moment
        between *asked* and *answered*, two moments of one clock."""
        if ttl_s < 0:  # etcd has no such lease
            return math.inf
        renewed = granted_s - 1
        """What is left of a lease that has just been renewed, rounded down."""
        since = answered - max(0, renewed - ttl_s)
        last = self._last
        # more than that was prolonged by an election, and not renewed since
        shows_renewals = last is not None and (last.ttl_s < renewed or ttl_s > renewed)
        if last and shows_renewals and ttl_s <= last.ttl_s and answered - last.asked < CLOSE_S:
            since = min(since, last.since)
        self._last = _Look(asked, ttl_s, since)
        return max(0.0, asked - since)
