"""How long a node may run what must not run twice: it stops before the control plane may start it elsewhere."""

from __future__ import annotations

import random

import pytest

from agent.contract.task import LAST_GRACE_S, LEASE_S, STRICT_SILENCE_S
from agent.engine.lease_fence import LeaseFence


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fence(clock: Clock) -> LeaseFence:
    made = LeaseFence(clock)
    made.taken_over()
    return made


def test_beats_that_are_answered_keep_the_lease(fence: LeaseFence, clock: Clock) -> None:
    for _ in range(100):
        beat = fence.beat()
        clock.now += LEASE_S / 2
        fence.answered(beat)
        assert not fence.ended


def test_it_counts_from_when_a_beat_was_said_and_not_from_its_answer(fence: LeaseFence, clock: Clock) -> None:
    beat = fence.beat()
    clock.now += LEASE_S - 1
    fence.answered(beat)
    clock.now += 2
    assert fence.ended


def test_an_answer_that_comes_too_late_changes_nothing(fence: LeaseFence, clock: Clock) -> None:
    """By then the tasks may be another node's: a manifest says whose they are."""
    beat = fence.beat()
    clock.now += LEASE_S + 1
    assert fence.ended
    fence.answered(beat)
    fence.answered(fence.beat())
    assert fence.ended
    fence.taken_over()
    assert not fence.ended


def test_a_node_that_never_had_a_manifest_has_nothing_to_stop(clock: Clock) -> None:
    fence = LeaseFence(clock)
    clock.now += 1e6
    assert not fence.ended


def test_the_node_has_stopped_before_others_may_start(clock: Clock) -> None:
    """Beats and answers are lost and late at random; one clock runs five in a hundred faster than the other."""
    for seed in range(500):
        rng = random.Random(seed)
        rate = rng.uniform(0.95, 1.05)  # of the node's clock, by the control plane's
        now, last_heard = 0.0, 0.0
        node = Clock()
        fence = LeaseFence(node)
        fence.taken_over()
        answers: list[tuple[float, int]] = []
        while True:
            now += 0.5
            node.now = 1000.0 + now * rate
            if now % 2 == 0:
                beat = fence.beat()
                if rng.random() < 0.7:  # it is heard, after a while, and answered, after another
                    heard = now + rng.uniform(0, 1)
                    last_heard = max(last_heard, now)  # the control plane's own stopwatch begins later still
                    if rng.random() < 0.8:
                        answers.append((heard + rng.uniform(0, 4), beat))
            for at, beat in [a for a in answers if a[0] <= now]:
                fence.answered(beat)
                answers.remove((at, beat))
            if fence.ended:
                break
            assert now < 10_000
        stopped = now + LAST_GRACE_S / rate
        assert stopped <= last_heard + STRICT_SILENCE_S, seed
