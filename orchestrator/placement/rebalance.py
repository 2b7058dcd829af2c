"""Moves that even out the load after nodes came or returned. Pure; proposed one by one, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.manifest import Record
from orchestrator.placement.board import Board, Demand


class Placed(msgspec.Struct, frozen=True):
    """Tasks that share a node now; *demand* is what they ask together."""

    demand: Demand
    tasks: tuple[str, ...]
    node: str
    stack: str


class Move(Record, frozen=True, kw_only=True):
    stack: str
    tasks: tuple[str, ...]
    source: str
    target: str
    reason: str


def moves(board: Board, placed: Sequence[Placed], *, limit: int) -> list[Move]:
    """At most *limit* moves, each of which makes the fullest node it can relieve emptier by more than it fills another.

    *board* has all tasks in it; what a volume or a bind mount holds in place is not moved. The board is left as the moves
    would leave it."""
    where = {unit.tasks: board.at[unit.node] for unit in placed if unit.node in board.at}
    out: list[Move] = []
    while len(out) < limit:
        found = _best(board, placed, where)
        if found is None:
            return out
        unit, target = found
        source = where[unit.tasks]
        here, there = board.nodes[source].name, board.nodes[target].name
        out.append(Move(
            stack=unit.stack, tasks=unit.tasks, source=here, target=there,
            reason=f"{here} has {board.total[source]} tasks, {there} {board.total[target]}",
        ))
        board.put(unit.demand, source, -1)
        board.put(unit.demand, target)
        where[unit.tasks] = target
    return out


def _best(board: Board, placed: Sequence[Placed], where: dict[tuple[str, ...], int]) -> tuple[Placed, int] | None:
    """The move that evens out most: the widest gap between its two nodes, in tasks; first in order where equal."""
    best: tuple[int, Placed, int] | None = None
    for unit in placed:
        source = where.get(unit.tasks)
        if source is None or unit.demand.pinned:
            continue
        board.put(unit.demand, source, -1)
        target = board.best(unit.demand, but=source)
        if target is not None:
            gap = int(board.total[source] - board.total[target])
            own = int(board.of(unit.demand.service)[source] - board.of(unit.demand.service)[target])
            if gap >= 1 and own >= 0 and (best is None or gap > best[0]):
                best = gap, unit, target
        board.put(unit.demand, source)
    return (best[1], best[2]) if best else None
