"""Placement against an oracle that knows nothing of how it is done, and its preferences case by case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.status import NodeInfo
from orchestrator.placement import node_table
from orchestrator.placement.columns import PlainColumns
from orchestrator.placement.constraints import matches
from orchestrator.placement.greedy import TaskGroup, place
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.placement.vectors import VectorColumns
from orchestrator.stackfile.constraints import parse
from orchestrator.stackfile.model import Placement, Reserves

ROOT = Path(__file__).parents[2]


def node(number: int, *, cpus: float = 4, memory: int = 8 << 30, zone: str = "a", availability: str = "active") -> Node:
    return Node(
        name=f"n{number}",
        id=str(number),
        labels=(("zone", zone),),
        availability=availability,  # type: ignore[arg-type]
        info=NodeInfo(hostname=f"n{number}", cpus=cpus, memory=memory),
    )


def table_of(*nodes: Node) -> NodeTable:
    """As arrays, also of one node."""
    return NodeTable(nodes, {n.name for n in nodes}, VectorColumns())


def counts(chosen: list[int], size: int) -> list[int]:
    return [chosen.count(i) for i in range(size)]


@pytest.mark.parametrize("copies", [3, 10, 60])  # looked at one by one, and over a heap
def test_equal_replicas_are_spread_evenly(copies: int) -> None:
    [chosen] = place(table_of(*(node(i) for i in range(5))), [TaskGroup(PlacementRequest(service="s"), copies)])
    found = counts(chosen, 5)
    assert sum(found) == copies
    assert max(found) - min(found) <= 1


def test_the_emptier_node_comes_first() -> None:
    table = table_of(node(0), node(1))
    place(table, [TaskGroup(PlacementRequest(service="other", placement=Placement(constraints=("node.hostname == n0",))), 3)])
    [[chosen]] = place(table, [TaskGroup(PlacementRequest(service="s"), 1)])
    assert chosen == 1


def test_a_host_on_its_own_loads_neither_numpy_nor_networkx() -> None:
    """They cost it 25 MB and 0.2 s."""
    code = """
import sys
from agent.contract.container import Container
from agent.contract.status import NodeInfo
from agent.contract.task import Task
from orchestrator.placement.assign import assign
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.stackfile.model import Reserves, Service, Stack

web = Service(name="web", container=Container(image="x"), where="f:1:1", reserves=Reserves(cpus=1, memory=1))
context = PlacementContext(nodes=[Node(name="n", id="n", info=NodeInfo(cpus=2, memory=2))], ready={"n"}, local="n")
task = Task(name="s-web-1", stack="s", service="web", container=web.container)
[placed] = assign(Stack(name="s", services=(web,)), [task], [], context)
print(placed.node, *sorted({"numpy", "networkx", "ortools"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["n"]


def test_labels_are_spread_over_before_nodes() -> None:
    nodes = [node(0, zone="a"), node(1, zone="a"), node(2, zone="a"), node(3, zone="b")]
    request = PlacementRequest(service="s", placement=Placement(spread=("node.labels.zone",)))
    [chosen] = place(table_of(*nodes), [TaskGroup(request, 6)])
    assert counts(chosen, 4) == [1, 1, 1, 3]


def test_the_first_label_goes_before_the_second() -> None:
    """Zone a has most of the nodes and racks: it gets no more than its half for that."""
    nodes = [
        Node(name=f"n{i}", id=str(i), labels=(("zone", zone), ("rack", rack)), info=NodeInfo(cpus=4))
        for i, (zone, rack) in enumerate([("a", "1"), ("a", "2"), ("a", "3"), ("b", "4")])
    ]
    request = PlacementRequest(service="s", placement=Placement(spread=("node.labels.zone", "node.labels.rack")))
    [chosen] = place(table_of(*nodes), [TaskGroup(request, 6)])
    assert counts(chosen, 4) == [1, 1, 1, 3]
    request = PlacementRequest(service="s", placement=Placement(spread=("node.labels.rack", "node.labels.zone")))
    [chosen] = place(table_of(*nodes), [TaskGroup(request, 8)])
    assert counts(chosen, 4) == [2, 2, 2, 2]


def test_drained_and_paused_nodes_take_nothing() -> None:
    nodes = [node(0, availability="drain"), node(1, availability="pause"), node(2)]
    [chosen] = place(table_of(*nodes), [TaskGroup(PlacementRequest(service="s"), 4)])
    assert set(chosen) == {2}


def test_near_and_away() -> None:
    nodes = [node(i) for i in range(3)]
    cache = PlacementRequest(service="x/cache", placement=Placement(constraints=("node.hostname == n1",)))
    web = PlacementRequest(service="x/web", near=("x/cache",))
    lone = PlacementRequest(service="x/lone", away=("x/cache", "x/web"))
    chosen = place(table_of(*nodes), [TaskGroup(web, 2), TaskGroup(lone, 2), TaskGroup(cache, 1)])
    assert chosen[2] == [1]
    assert chosen[0] == [1, 1]
    assert set(chosen[1]) == {0, 2}


def test_what_does_not_fit_is_left_over() -> None:
    request = PlacementRequest(service="s", reserves=Reserves(cpus=1.5))
    [chosen] = place(table_of(node(0, cpus=4), node(1, cpus=2)), [TaskGroup(request, 20)])
    assert counts(chosen, 2) == [2, 1]


def test_counts_of_many_services_take_no_column_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose column went is counted as before when it is asked for: here others are near it, and away from it."""
    nodes = [node(i, zone="ab"[i % 2]) for i in range(8)]
    groups = [
        TaskGroup(
            PlacementRequest(
                service=f"s/{i}", away=(f"s/{i - 6}",) if i % 3 == 1 else (), near=(f"s/{i - 5}",) if i % 7 == 6 else ()
            ),
            2,
        )
        for i in range(20)
    ]
    placed = place(table_of(*nodes), groups)
    monkeypatch.setattr(node_table, "COLUMNS_KEPT", 2)
    table = table_of(*nodes)
    assert place(table, groups) == placed
    assert [int(n) for n in table.tasks_of("s/0")] == counts(placed[0], len(nodes))


REQUESTS = st.builds(
    PlacementRequest,
    service=st.sampled_from(["s/a", "s/b", "s/c", "s/d"]),
    placement=st.builds(
        Placement,
        constraints=st.sampled_from([(), ("node.labels.zone == a",), ("node.labels.zone != a",), ("node.hostname != n0",)]),
        max_per_node=st.sampled_from([0, 0, 1, 2]),
        spread=st.sampled_from([(), ("node.labels.zone",), ("node.labels.zone", "node.hostname"), ("node.hostname",)]),
    ),
    reserves=st.builds(Reserves, cpus=st.sampled_from([0.0, 0.5, 1.0, 3.0]), memory=st.sampled_from([0, 1 << 30, 5 << 30])),
    ports=st.sampled_from([frozenset(), frozenset({(80, "tcp")})]),
    away=st.sampled_from([(), ("s/a",)]),
    near=st.sampled_from([(), (), ("s/b",)]),
)


@given(
    nodes=st.lists(
        st.builds(
            node,
            st.just(0),
            cpus=st.sampled_from([1, 4, 16]),
            memory=st.sampled_from([2 << 30, 32 << 30]),
            zone=st.sampled_from("abc"),
            availability=st.sampled_from(["active", "active", "drain"]),
        ),
        min_size=1,
        max_size=8,
    ),
    groups=st.lists(
        st.builds(TaskGroup, REQUESTS, st.integers(1, 30)), min_size=1, max_size=6, unique_by=lambda u: u.request.service
    ),
)
@settings(max_examples=150, deadline=None)
def test_no_constraint_is_ever_violated(nodes: list[Node], groups: list[TaskGroup]) -> None:
    import msgspec

    named = [msgspec.structs.replace(n, name=f"n{i}", id=str(i)) for i, n in enumerate(nodes)]
    first = place(table_of(*named), groups)
    assert first == place(table_of(*named), groups), "the same input gives the same answer"
    plain = NodeTable(named, {n.name for n in named}, PlainColumns())
    assert first == place(plain, groups), "without numpy, as on a host that is alone, it is the same"
    cpus, memory = [n.info.cpus for n in named], [n.info.memory for n in named]
    ports: set[tuple[int, tuple[int, str]]] = set()
    there: dict[str, set[int]] = {}
    for group, chosen in zip(groups, first, strict=True):
        assert len(chosen) <= group.count
        request = group.request
        for i in chosen:
            assert named[i].availability == "active"
            assert all(matches(parse(c), named[i]) for c in request.placement.constraints)
            cpus[i] -= request.reserves.cpus
            memory[i] -= request.reserves.memory
            for port in request.ports:
                assert (i, port) not in ports
                ports.add((i, port))
            there.setdefault(request.service, set()).add(i)
        if request.placement.max_per_node:
            assert max((chosen.count(i) for i in chosen), default=0) <= request.placement.max_per_node
    assert min(cpus) >= -1e-6
    assert min(memory) >= 0


def test_moves_even_out_and_stop() -> None:
    from orchestrator.placement.rebalance import Placed, moves

    table = table_of(node(0), node(1), node(2))
    free, held = PlacementRequest(service="s/a"), PlacementRequest(service="s/b", pinned="n0", pinned_by="volume x is")
    for request in (*[free] * 5, held):
        table.commit(request, 0)
    placed = [Placed(free, (f"a{i}",), "n0", "s") for i in range(5)] + [Placed(held, ("b0",), "n0", "s")]
    found = moves(table, placed, limit=50)
    assert sorted(table.tasks) == [2, 2, 2]
    assert len(found) == 4
    assert {m.target for m in found} == {"n1", "n2"}
    assert all("b0" not in m.tasks for m in found)
    assert moves(table_of(node(0), node(1)), [], limit=5) == []


def test_a_move_that_only_swaps_the_fuller_node_is_not_made() -> None:
    from orchestrator.placement.rebalance import Placed, moves

    table, request = table_of(node(0), node(1)), PlacementRequest(service="s/a")
    for row in (0, 0, 0, 1, 1):
        table.commit(request, row)
    assert moves(table, [Placed(request, (f"a{i}",), "n0", "s") for i in range(3)], limit=5) == []


def test_the_budget_of_moves_is_kept() -> None:
    from orchestrator.placement.rebalance import Placed, moves

    table = table_of(node(0), node(1))
    request = PlacementRequest(service="s/a")
    for _ in range(8):
        table.commit(request, 0)
    assert len(moves(table, [Placed(request, (f"a{i}",), "n0", "s") for i in range(8)], limit=2)) == 2
