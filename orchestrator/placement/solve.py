"""Puts units on nodes. Pure and deterministic: the same units and the same board give the same answer."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec

from orchestrator.placement.board import Board, Demand

HEAP_FROM = 12
"""From this many equal units on, one heap is cheaper than a look over all nodes for each."""


class Unit(msgspec.Struct, frozen=True):
    """What is placed as one: *count* equal ones, none of which must share a node with another."""

    demand: Demand
    count: int


def place(board: Board, units: Sequence[Unit]) -> list[list[int]]:
    """For each unit the nodes of its copies, by number; shorter than its count where the rest fits nowhere.

    The board is left with all of it taken into account. Those hardest to place come first: few fitting nodes, then big
    reservations. Where that leaves something over, the exact solver has the last word (`orchestrator.placement.exact`)."""
    order = sorted(range(len(units)), key=lambda i: _hardness(board, units[i].demand))
    out: list[list[int]] = [[] for _ in units]
    for i in order:
        unit = units[i]
        plain = not (unit.demand.placement.spread or unit.demand.near or unit.demand.away)
        out[i] = _many(board, unit) if plain and unit.count >= HEAP_FROM else _each(board, unit)
    return out


def _hardness(board: Board, demand: Demand) -> tuple[bool, int, float]:
    share = demand.reserves.cpus + demand.reserves.memory / (1 << 30)
    return bool(demand.near), board.width(demand), -share


def _each(board: Board, unit: Unit) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < unit.count and (node := board.best(unit.demand)) is not None:
        board.put(unit.demand, node)
        chosen.append(node)
    return chosen


def _many(board: Board, unit: Unit) -> list[int]:
    """Equal copies over one heap of nodes: only the chosen node's cost changes."""
    demand = unit.demand
    fit, cost = board.fit(demand), board.cost(demand)
    heap = [(int(cost[i]), i) for i, ok in enumerate(fit) if ok]
    heapq.heapify(heap)
    left = [int(n) for n in board.room(demand)]
    step = (1 << 20) + demand.tasks
    taken: dict[int, int] = {}
    chosen: list[int] = []
    while heap and len(chosen) < unit.count:
        key, node = heap[0]
        chosen.append(node)
        taken[node] = taken.get(node, 0) + 1
        if taken[node] < left[node]:
            heapq.heapreplace(heap, (key + step, node))
        else:
            heapq.heappop(heap)
    for node, count in taken.items():
        board.put(demand, node, count)
    return chosen
