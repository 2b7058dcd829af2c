"""What looks at a lease's time to live say about its renewals: never more than is true."""

from __future__ import annotations

import math
import random

import pytest

from orchestrator.store.etcd.renewal import CLOSE_S, RenewalAge

GRANTED_S = 4


def left(now: float, ends: float) -> int:
    """As etcd says it, a moment after anything that happened at *now*."""
    return math.floor(ends - now - 1e-6)


def test_a_lease_that_is_renewed_is_young_and_one_that_is_not_grows_older() -> None:
    age, ends = RenewalAge(), 0.0
    for look in range(40):
        now = look * 0.1
        if look % 5 == 0 and now < 2.0:
            renewed, ends = now, now + GRANTED_S
        seen = age.seen(now, now, GRANTED_S, left(now, ends))
        assert seen <= now - renewed + 0.01
    assert seen >= 2.2  # of 2.4 s: to the second, and then by the looks


def test_a_lease_that_an_election_prolonged_is_seen_not_to_be_renewed() -> None:
    age, promoted = RenewalAge(), 10.0
    ends = promoted + GRANTED_S + 1
    oldest = max(age.seen(now, now, GRANTED_S, left(now, ends)) for now in (10.1, 10.3, 10.5, 10.7, 10.9))
    assert oldest == pytest.approx(0.8)


def test_a_lease_that_is_gone_is_as_old_as_can_be() -> None:
    assert RenewalAge().seen(1.0, 1.1, 0, -1) == math.inf


def test_looks_that_are_far_apart_say_what_each_says_alone() -> None:
    age = RenewalAge()
    assert age.seen(0.0, 0.0, GRANTED_S, 2) == 1.0
    assert age.seen(CLOSE_S + 0.5, CLOSE_S + 0.5, GRANTED_S, 2) == 1.0  # it may have been renewed, and aged again


@pytest.mark.parametrize("seed", range(300))
def test_the_age_is_never_more_than_the_time_since_the_last_renewal(seed: int) -> None:
    """Renewals, elections that prolong the lease, slow answers and looks at moments of chance."""
    chance, age, elected = random.Random(seed), RenewalAge(), 0.0
    now, renewed, ends = 100.0, 100.0, 100.0 + GRANTED_S
    for _ in range(200):
        now += chance.choice((0.01, 0.1, 0.2, 0.5, 1.0))
        happens = chance.random()
        if happens < 0.2:
            renewed, ends = now, now + GRANTED_S
        elif happens < 0.3 and now - elected >= 3.0:
            elected, ends = now, now + GRANTED_S + 1
        elif ends > now + 0.4:
            asked = now
            now += chance.choice((0.0, 0.0, 0.05, 0.4))
            at = chance.uniform(asked, now)
            seen = age.seen(asked, now, GRANTED_S, left(at, ends))
            assert seen <= at - renewed + 1e-9
