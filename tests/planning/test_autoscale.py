"""The number of replicas for a load, against a reference that follows Kubernetes' document line by line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from orchestrator.planning.autoscale import ScaleMemory, decide, recommend, recommend_for
from orchestrator.stackfile.workloads import Scale, ScaleQuery

SCALE = Scale(least=2, most=40, cpu=50.0)
PERIOD_S = 15.0
TURNS = 120


def step(t: float) -> float:
    return 4.0 if t < 600 else 24.0


def ramp(t: float) -> float:
    return 3.0 + t / 60


def spike(t: float) -> float:
    return 30.0 if 600 <= t < 660 else 5.0


def sine(t: float) -> float:
    return 15.0 + 8.0 * math.sin(t / 200)


def flapping(t: float) -> float:
    return 10.0 if int(t / PERIOD_S) % 2 else 14.0


CURVES = [step, ramp, spike, sine, flapping]


class Reference:
    """The document, said again with plain lists: recommendations of five minutes, 100 % or four tasks in 15 s."""

    def __init__(self) -> None:
        self.recommendations: list[tuple[float, int]] = []

    def replicas(self, t: float, current: int, use: float) -> int:
        ratio = use / 50.0
        wanted = current if abs(ratio - 1.0) <= 0.1 else math.ceil(round(current * ratio, 9))
        self.recommendations.append((t, wanted))
        if wanted < current:
            wanted = min(current, max(n for at, n in self.recommendations if t - at <= 300.0))
        if wanted > current:
            wanted = min(wanted, max(current * 2, current + 4))
        return max(2, min(40, wanted))


def live(curve: Callable[[float], float]) -> list[int]:
    """The replicas at each turn: *curve* gives the load as how many replicas at their target it keeps busy."""
    memory, reference, current, out = ScaleMemory(), Reference(), 4, []
    for turn in range(TURNS):
        t = turn * PERIOD_S
        use = 50.0 * curve(t) / current
        found = decide(SCALE, memory, t, current, {"cpu": [use] * current})
        assert found.replicas == reference.replicas(t, current, use), (curve.__name__, t, found.memory.reason)
        memory, current = found.memory, found.replicas
        out.append(current)
    return out


@pytest.mark.parametrize("curve", CURVES, ids=lambda c: c.__name__)
def test_it_does_what_the_document_says_and_does_not_oscillate(curve: Callable[[float], float]) -> None:
    found = live(curve)
    for turn in range(len(found)):
        if curve(turn * PERIOD_S) > found[turn] * 1.1 and turn + 2 < len(found):  # the target is reached within two periods
            later = curve((turn + 2) * PERIOD_S)
            assert found[turn + 2] * 1.1 >= min(later, curve(turn * PERIOD_S)), (turn, found)
    turns = [b - a for a, b in itertools.pairwise(found) if b != a]
    assert sum((a > 0) != (b > 0) for a, b in itertools.pairwise(turns)) <= (8 if curve is sine else 2)


def test_tasks_that_say_nothing_count_against_the_change() -> None:
    assert recommend(4, [100.0, 100.0, None, None], 50) == 4
    assert recommend(4, [200.0, 200.0, None, None], 50) == 8
    assert recommend(4, [10.0, 10.0, None, None], 50) == 3
    assert recommend(4, [None] * 4, 50) == 4
    assert recommend(4, [54.0] * 4, 50) == 4  # the dead band
    assert recommend(0, [], 50) == 0


def test_the_largest_of_several_targets_counts_and_each_decision_has_its_reason() -> None:
    both = Scale(least=1, most=9, cpu=50.0, memory=80.0)
    found = decide(both, ScaleMemory(), 0.0, 4, {"cpu": [10.0] * 4, "memory": [120.0] * 4})
    assert found.replicas == 6
    assert found.memory.reason == "4 → 6: cpu is at 10% of 50%, which asks for 1; memory is at 120% of 80%, which asks for 6"
    assert decide(both, ScaleMemory(), 0.0, 8, {"cpu": [200.0] * 8}).memory.reason.endswith("max is 9")
    assert decide(both, ScaleMemory(paused=True), 0.0, 4, {"cpu": [200.0] * 4}).replicas == 4
    assert "nothing is known" in decide(both, ScaleMemory(), 0.0, 4, {}).memory.reason


def test_what_is_for_all_replicas_together_counts_too() -> None:
    queue = Scale(least=0, most=9, rps=50.0, query=ScaleQuery(promql="q", value=100.0))
    found = decide(queue, ScaleMemory(), 0.0, 2, {}, {"rps": 290.0, "query": 120.0})
    assert found.replicas == 6
    assert (
        found.memory.reason == "2 → 6: rps is 290, 50 for each, which asks for 6; query is 120, 100 for each, which asks for 2"
    )
    assert decide(queue, ScaleMemory(), 0.0, 0, {}, {"query": 1.0}).replicas == 1  # the first that comes, from none
    assert decide(queue, ScaleMemory(), 0.0, 0, {}, {"query": 0.0}).replicas == 0
    idle = [decide(queue, ScaleMemory(recommended=((0.0, 2),)), at, 2, {}, {"query": 0.0}).replicas for at in (200.0, 400.0)]
    assert idle == [2, 0]  # not before the time of down.stabilise
    lost = decide(queue, ScaleMemory(), 0.0, 4, {}, {"rps": "the cluster has no ingress", "query": 120.0})
    assert lost.replicas == 4, "what nobody knows takes no replica away"
    assert "rps is not known: the cluster has no ingress" in lost.memory.reason
    assert recommend_for(4, 430.0, 100.0) == 4  # the dead band
