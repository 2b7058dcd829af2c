"""The pauses between tries."""

from __future__ import annotations

from itertools import islice

from agent.contract.backoff import Backoff


def test_pauses_double_up_to_the_limit() -> None:
    assert list(islice(Backoff(0.25, 2.0), 6)) == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_the_first_pause_is_within_the_limit() -> None:
    assert list(islice(Backoff(5.0, 1.0, factor=4.0), 2)) == [1.0, 1.0]


def test_a_success_begins_anew() -> None:
    pauses = Backoff(1.0, 8.0)
    list(islice(pauses, 3))
    pauses.reset()
    assert next(pauses) == 1.0


def test_jitter_only_shortens() -> None:
    pauses = list(islice(Backoff(1.0, 1.0, jitter=0.5), 200))
    assert all(0.5 <= p <= 1.0 for p in pauses)
    assert len(set(pauses)) > 100
