"""The exact solver against a count by hand, and what the fast way gives against its optimum."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.container import Container
from agent.contract.task import Task
from orchestrator.placement.assign import assign
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.exact import solve
from orchestrator.placement.explain import UnschedulableError
from orchestrator.placement.greedy import TaskGroup, place
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Placement, Reserves, Service, Stack
from tests.placement.test_place import node, table_of


def group(name: str, cpus: float, count: int = 1) -> TaskGroup:
    return TaskGroup(PlacementRequest(service=f"s/{name}", reserves=Reserves(cpus=cpus)), count)


def test_it_packs_what_the_fast_way_cannot() -> None:
    """Two threes and three twos on two nodes of six cores: spreading the first ones leaves no room for the last."""
    groups = [group("two", 2, 3), group("three", 3, 2)]
    found = solve(table_of(node(0, cpus=6), node(1, cpus=6)), groups)
    assert found is not None
    assert sorted(found[0]) in ([0, 0, 0], [1, 1, 1])
    assert solve(table_of(node(0, cpus=6), node(1, cpus=5)), groups) is None


@given(
    st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=6),
    st.lists(st.sampled_from([3, 5, 6]), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_it_agrees_with_trying_everything(sizes: list[int], nodes: list[int]) -> None:
    possible = any(
        all(sum(s for s, p in zip(sizes, places, strict=True) if p == n) <= room for n, room in enumerate(nodes))
        for places in itertools.product(range(len(nodes)), repeat=len(sizes))
    )
    table = table_of(*(node(i, cpus=c) for i, c in enumerate(nodes)))
    assert (solve(table, [group(str(i), s) for i, s in enumerate(sizes)]) is not None) is possible


TWO = (node(0, cpus=4, memory=4 << 30), node(1, cpus=4, memory=4 << 30))
PORT = frozenset({(80, "tcp")})
LIMITS = {
    "cores": ({"reserves": Reserves(cpus=2.5)}, None, 2),
    "cores that others have": ({"reserves": Reserves(cpus=2.5)}, {"reserves": Reserves(cpus=1.6)}, 1),
    "memory": ({"reserves": Reserves(memory=(2 << 30) + 1)}, None, 2),
    "memory that others have": ({"reserves": Reserves(memory=1 << 30)}, {"reserves": Reserves(memory=1)}, 7),
    "things": ({"reserves": Reserves(generic=(("gpu", 1),))}, None, 0),
    "ports": ({"ports": PORT}, None, 2),
    "ports that others have": ({"ports": PORT}, {"ports": PORT}, 1),
    "most on a node": ({"placement": Placement(max_per_node=3)}, None, 6),
    "away from what is there": ({"away": ("s/there",), "placement": Placement(max_per_node=1)}, {}, 1),
    "near what is there": ({"near": ("s/there",), "placement": Placement(max_per_node=2)}, {}, 2),
}


@pytest.mark.parametrize(("asked", "there", "most"), LIMITS.values(), ids=LIMITS)
def test_it_keeps_the_limit_of(asked: dict[str, Any], there: dict[str, Any] | None, most: int) -> None:
    """On two nodes, something on the first: so many copies fit, and not one more."""
    table = table_of(*TWO)
    if there is not None:
        table.commit(PlacementRequest(service="s/there", **there), 0)
    request = PlacementRequest(service="s/web", **asked)
    if most:
        assert solve(table, [TaskGroup(request, most)]) is not None
    assert solve(table, [TaskGroup(request, most + 1)]) is None


@pytest.mark.parametrize(("asked", "apart"), [({"away": ("s/db",)}, True), ({"near": ("s/db",)}, False)], ids=["away", "near"])
def test_it_keeps_what_it_places_together_or_apart(asked: dict[str, Any], apart: bool) -> None:
    db = TaskGroup(PlacementRequest(service="s/db", reserves=Reserves(cpus=1)), 1)
    found = solve(table_of(*TWO), [TaskGroup(PlacementRequest(service="s/web", **asked), 2), db])
    assert found is not None
    assert set(found[0]).isdisjoint(found[1]) is apart
    assert apart or set(found[0]) == set(found[1])


def test_a_stack_moves_only_what_must_move() -> None:
    nodes = (node(0, cpus=4), node(1, cpus=4))
    context = PlacementContext(nodes=nodes, ready={"n0", "n1"}, local="n0")

    def service(name: str, cpus: float, replicas: int) -> Service:
        return Service(
            name=name, container=Container(image="x"), where="f:1:1", replicas=replicas, reserves=Reserves(cpus=cpus)
        )

    def tasks(stack: Stack) -> list[Task]:
        return [
            Task(name=f"s-{s.name}-{i}", stack="s", service=s.name, container=s.container, index=i)
            for s in stack.services
            for i in range(1, s.replicas + 1)
        ]

    small = Stack(name="s", services=(service("small", 1, 2),))
    first = assign(small, tasks(small), [], context)
    assert {t.node for t in first} == {"n0", "n1"}
    both = Stack(name="s", services=(service("small", 1, 2), service("big", 4, 1)))
    then = {t.name: t.node for t in assign(both, tasks(both), first, context)}
    moved = [t.name for t in first if then[t.name] != t.node]
    assert len(moved) == 1
    over = Stack(name="s", services=(service("small", 1, 2), service("big", 4, 2)))
    try:
        assign(over, tasks(over), first, context)
    except UnschedulableError as error:
        assert "proven" in str(error)
    else:
        raise AssertionError("nine cores do not fit eight")


def test_the_fast_way_is_near_the_optimum() -> None:
    """The most loaded node has at most 2 % more tasks than in the best placement there is."""
    import random

    rnd = random.Random(7)
    nodes = [node(i, cpus=32, zone="ab"[i % 2]) for i in range(20)]
    for _ in range(3):
        groups = [
            TaskGroup(
                PlacementRequest(
                    service=f"s/{i}",
                    reserves=Reserves(cpus=rnd.choice([0.25, 0.5, 1])),
                    placement=Placement(constraints=rnd.choice([(), ("node.labels.zone == a",)])),
                ),
                rnd.randint(1, 12),
            )
            for i in range(30)
        ]
        quick = place(table_of(*nodes), groups)
        best = solve(table_of(*nodes), groups)
        assert best is not None

        def top(found: list[list[int]]) -> int:
            flat = [n for chosen in found for n in chosen]
            return max(flat.count(n) for n in set(flat))

        assert all(len(c) == u.count for c, u in zip(quick, groups, strict=True))
        assert top(quick) <= max(top(best) * 1.02, top(best) + 1)
