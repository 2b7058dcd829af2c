"""Puts units on nodes. Pure and deterministic: the same units and the same board give the same answer."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec
import numpy as np

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
    return bool(demand.near), int(np.count_nonzero(board.static(demand))) if board.nodes else 0, -share


def _each(board: Board, unit: Unit) -> list[int]:
    chosen: list[int] = []
    for _ in range(unit.count):
        fit = board.fit(unit.demand)
        if not fit.any():
            break
        cost = np.where(fit, board.cost(unit.demand), np.iinfo(np.int64).max)
        node = int(cost.argmin())
        board.put(unit.demand, node)
        chosen.append(node)
    return chosen


def _many(board: Board, unit: Unit) -> list[int]:
    """Equal copies over one heap of nodes: only the chosen node's cost changes."""
    demand = unit.demand
    fit, cost = board.fit(demand), board.cost(demand)
    heap = [(int(cost[i]), int(i)) for i in np.flatnonzero(fit)]
    heapq.heapify(heap)
    left = _copies_left(board, demand)
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


def _copies_left(board: Board, demand: Demand) -> list[int]:
    """How many more copies of *demand* each node can take."""
    left = np.full(len(board.nodes), 1 << 40, dtype=np.int64)
    reserves = demand.reserves
    if reserves.cpus:
        left = np.minimum(left, ((board.cpus + 1e-9) // reserves.cpus).astype(np.int64))
    if reserves.memory:
        left = np.minimum(left, (board.memory // reserves.memory).astype(np.int64))
    for kind, number in reserves.generic:
        left = np.minimum(left, (board.free(kind) // number).astype(np.int64))
    if demand.ports:
        left = np.minimum(left, 1)
    if demand.placement.max_per_node:
        left = np.minimum(left, demand.placement.max_per_node - board.of(demand.service))
    return [int(n) for n in left]
