"""Puts task groups on nodes one after the other. Pure and deterministic: the same groups and table give the same answer."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec

from orchestrator.placement.columns import PlainColumns
from orchestrator.placement.cost import OWN_TASK, cost
from orchestrator.placement.feasibility import Feasibility, capacity_for, count_static_candidates
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

MOST_LABELS = 3
"""Labels to spread over whose digits of a cost leave one bit of 63."""
HEAP_FROM = 12
"""From this many equal copies on, one heap is cheaper than a look over all nodes for each."""


class TaskGroup(msgspec.Struct, frozen=True):
    """*count* equal copies of *request*; each may have a node of its own."""

    request: PlacementRequest
    count: int


def place(table: NodeTable, groups: Sequence[TaskGroup]) -> list[list[int]]:
    """For each group the rows of its copies; fewer than its count where the rest fits nowhere.

    All copies are counted into the table. Those of the highest priority come first, then those hardest to place: few suitable
    nodes, then large reservations.
    If copies are left over, the exact solver decides (`orchestrator.placement.exact`)."""
    order = sorted(range(len(groups)), key=lambda i: (-groups[i].request.priority, difficulty(table, groups[i].request)))
    out: list[list[int]] = [[] for _ in groups]
    for i in order:
        group, request = groups[i], groups[i].request
        plain = not (request.placement.spread or request.near or request.away)
        out[i] = _place_by_heap(table, group) if plain and group.count >= HEAP_FROM else _place_each(table, group)
    return out


def best_node(feasibility: Feasibility, but: int = -1) -> int | None:
    """The row of the cheapest node that can take one more copy, other than *but*; None where there is none."""
    table, mask = feasibility.table, feasibility.mask()
    if but >= 0:
        mask[but] = False
    if not table.columns.count(mask):
        return None
    return table.columns.lowest(cost(feasibility.request, table), mask)


def difficulty(table: NodeTable, request: PlacementRequest) -> tuple[bool, int, float]:
    """What is placed first has the least: what must be near others comes after them."""
    share = request.reserves.cpus + request.reserves.memory / (1 << 30)
    return bool(request.near), count_static_candidates(request, table), -share


def _place_each(table: NodeTable, group: TaskGroup) -> list[int]:
    feasibility = Feasibility(group.request, table)
    if not isinstance(table.columns, PlainColumns) and len(group.request.placement.spread) <= MOST_LABELS:
        return _place_by_ranking(feasibility, group.count)
    chosen: list[int] = []
    while len(chosen) < group.count and (row := best_node(feasibility)) is not None:
        table.commit(group.request, row)
        chosen.append(row)
    return chosen


def _place_by_ranking(feasibility: Feasibility, count: int) -> list[int]:
    from orchestrator.placement.ranking import Ranking  # not at the top: a single host does without numpy

    ranking = Ranking(feasibility)
    chosen: list[int] = []
    while len(chosen) < count and (row := ranking.lowest()) is not None:
        feasibility.table.commit(feasibility.request, row)
        ranking.count(row)
        chosen.append(row)
    return chosen


def _place_by_heap(table: NodeTable, group: TaskGroup) -> list[int]:
    """Place equal copies with one heap of nodes: each copy only changes the cost of its node."""
    request = group.request
    mask, costs = Feasibility(request, table).mask().tolist(), cost(request, table).tolist()
    heap = [(key, row) for row, (key, ok) in enumerate(zip(costs, mask, strict=True)) if ok]
    heapq.heapify(heap)
    left = capacity_for(request, table).tolist()
    step = OWN_TASK + request.tasks
    taken: dict[int, int] = {}
    chosen: list[int] = []
    while heap and len(chosen) < group.count:
        key, row = heap[0]
        chosen.append(row)
        taken[row] = taken.get(row, 0) + 1
        if taken[row] < left[row]:
            heapq.heapreplace(heap, (key + step, row))
        else:
            heapq.heappop(heap)
    for row, count in taken.items():
        table.commit(request, row, count)
    return chosen
