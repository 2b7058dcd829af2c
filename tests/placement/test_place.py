"""Placement against an oracle that knows nothing of how it is done, and its preferences case by case."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.manifest import Facts
from orchestrator.placement.arrays import Arrays
from orchestrator.placement.board import Board, Demand
from orchestrator.placement.constraints import matches, parse
from orchestrator.placement.node import Node
from orchestrator.placement.solve import Unit, place
from orchestrator.stackfile.model import Placement, Reserves


def node(number: int, *, cpus: float = 4, memory: int = 8 << 30, zone: str = "a", availability: str = "active") -> Node:
    return Node(
        name=f"n{number}", id=str(number), labels=(("zone", zone),), availability=availability,  # type: ignore[arg-type]
        facts=Facts(hostname=f"n{number}", cpus=cpus, memory=memory),
    )


def board_of(*nodes: Node) -> Board:
    return Arrays(nodes, {n.name for n in nodes})


def counts(chosen: list[int], size: int) -> list[int]:
    return [chosen.count(i) for i in range(size)]


@pytest.mark.parametrize("copies", [3, 10, 60])  # looked at one by one, and over a heap
def test_equal_replicas_are_spread_evenly(copies: int) -> None:
    [chosen] = place(board_of(*(node(i) for i in range(5))), [Unit(Demand(service="s"), copies)])
    found = counts(chosen, 5)
    assert sum(found) == copies
    assert max(found) - min(found) <= 1


def test_the_emptier_node_comes_first() -> None:
    board = board_of(node(0), node(1))
    place(board, [Unit(Demand(service="other", placement=Placement(constraints=("node.hostname == n0",))), 3)])
    [[chosen]] = place(board, [Unit(Demand(service="s"), 1)])
    assert chosen == 1


def test_labels_are_spread_over_before_nodes() -> None:
    nodes = [node(0, zone="a"), node(1, zone="a"), node(2, zone="a"), node(3, zone="b")]
    demand = Demand(service="s", placement=Placement(spread=("node.labels.zone",)))
    [chosen] = place(board_of(*nodes), [Unit(demand, 6)])
    assert counts(chosen, 4) == [1, 1, 1, 3]


def test_drained_and_paused_nodes_take_nothing() -> None:
    nodes = [node(0, availability="drain"), node(1, availability="pause"), node(2)]
    [chosen] = place(board_of(*nodes), [Unit(Demand(service="s"), 4)])
    assert set(chosen) == {2}


def test_near_and_away() -> None:
    nodes = [node(i) for i in range(3)]
    cache = Demand(service="x/cache", placement=Placement(constraints=("node.hostname == n1",)))
    web = Demand(service="x/web", near=("x/cache",))
    lone = Demand(service="x/lone", away=("x/cache", "x/web"))
    chosen = place(board_of(*nodes), [Unit(web, 2), Unit(lone, 2), Unit(cache, 1)])
    assert chosen[2] == [1]
    assert chosen[0] == [1, 1]
    assert set(chosen[1]) == {0, 2}


def test_what_does_not_fit_is_left_over() -> None:
    demand = Demand(service="s", reserves=Reserves(cpus=1.5))
    [chosen] = place(board_of(node(0, cpus=4), node(1, cpus=2)), [Unit(demand, 20)])
    assert counts(chosen, 2) == [2, 1]


DEMANDS = st.builds(
    Demand,
    service=st.sampled_from(["s/a", "s/b", "s/c", "s/d"]),
    placement=st.builds(
        Placement,
        constraints=st.sampled_from([(), ("node.labels.zone == a",), ("node.labels.zone != a",), ("node.hostname != n0",)]),
        max_per_node=st.sampled_from([0, 0, 1, 2]),
        spread=st.sampled_from([(), ("node.labels.zone",)]),
    ),
    reserves=st.builds(Reserves, cpus=st.sampled_from([0.0, 0.5, 1.0, 3.0]), memory=st.sampled_from([0, 1 << 30, 5 << 30])),
    ports=st.sampled_from([frozenset(), frozenset({(80, "tcp")})]),
    away=st.sampled_from([(), ("s/a",)]),
)


@given(
    nodes=st.lists(st.builds(node, st.just(0), cpus=st.sampled_from([1, 4, 16]), memory=st.sampled_from([2 << 30, 32 << 30]),
                             zone=st.sampled_from("abc"), availability=st.sampled_from(["active", "active", "drain"])),
                   min_size=1, max_size=8),
    units=st.lists(st.builds(Unit, DEMANDS, st.integers(1, 30)), min_size=1, max_size=6, unique_by=lambda u: u.demand.service),
)
@settings(max_examples=150, deadline=None)
def test_no_constraint_is_ever_violated(nodes: list[Node], units: list[Unit]) -> None:
    import msgspec

    named = [msgspec.structs.replace(n, name=f"n{i}", id=str(i)) for i, n in enumerate(nodes)]
    first = place(board_of(*named), units)
    assert first == place(board_of(*named), units), "the same input gives the same answer"
    words, arrays = Board(named, {n.name for n in named}), board_of(*named)
    assert first == place(words, units), "node by node, as on a host that is alone, it is the same"
    place(arrays, units)
    for unit in units:
        for look in (Board.fit, Board.static, Board.cost, Board.room):
            assert [*look(words, unit.demand)] == [*getattr(arrays, look.__name__)(unit.demand)]
    cpus, memory = [n.facts.cpus for n in named], [n.facts.memory for n in named]
    ports: set[tuple[int, tuple[int, str]]] = set()
    there: dict[str, set[int]] = {}
    for unit, chosen in zip(units, first, strict=True):
        assert len(chosen) <= unit.count
        demand = unit.demand
        for i in chosen:
            assert named[i].availability == "active"
            assert all(matches(parse(c), named[i]) for c in demand.placement.constraints)
            cpus[i] -= demand.reserves.cpus
            memory[i] -= demand.reserves.memory
            for port in demand.ports:
                assert (i, port) not in ports
                ports.add((i, port))
            there.setdefault(demand.service, set()).add(i)
        if demand.placement.max_per_node:
            assert max((chosen.count(i) for i in chosen), default=0) <= demand.placement.max_per_node
    assert min(cpus) >= -1e-6
    assert min(memory) >= 0


def test_moves_even_out_and_stop() -> None:
    from orchestrator.placement.rebalance import Placed, moves

    board = board_of(node(0), node(1), node(2))
    free, held = Demand(service="s/a"), Demand(service="s/b", pinned="n0", pinned_by="volume x is")
    for demand in (*[free] * 5, held):
        board.put(demand, 0)
    placed = [Placed(free, (f"a{i}",), "n0", "s") for i in range(5)] + [Placed(held, ("b0",), "n0", "s")]
    found = moves(board, placed, limit=50)
    assert sorted(board.total) == [2, 2, 2]
    assert len(found) == 4
    assert {m.target for m in found} == {"n1", "n2"}
    assert all("b0" not in m.tasks for m in found)
    assert moves(board_of(node(0), node(1)), [], limit=5) == []


def test_the_budget_of_moves_is_kept() -> None:
    from orchestrator.placement.rebalance import Placed, moves

    board = board_of(node(0), node(1))
    demand = Demand(service="s/a")
    for _ in range(8):
        board.put(demand, 0)
    assert len(moves(board, [Placed(demand, (f"a{i}",), "n0", "s") for i in range(8)], limit=2)) == 2
