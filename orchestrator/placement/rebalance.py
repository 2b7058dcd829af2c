"""Moves that even out the load after nodes were added or came back: one by one, each with its reason. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.contract.task import Task
from agent.contract.wire import WireStruct
from orchestrator.placement.colocation import colocate
from orchestrator.placement.context import PlacementContext, service_requests
from orchestrator.placement.feasibility import Feasibility
from orchestrator.placement.greedy import best_node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Stack


class Placed(msgspec.Struct, frozen=True):
    """Tasks that share a node now; *request* is what they ask of it together."""

    request: PlacementRequest
    tasks: tuple[str, ...]
    node: str
    stack: str


class Move(WireStruct, frozen=True, kw_only=True):
    """*tasks* of one stack go from the node *source* to *target*."""

    stack: str
    tasks: tuple[str, ...]
    source: str
    target: str
    reason: str


def placed_groups(stack: Stack, tasks: Sequence[Task], context: PlacementContext) -> list[Placed]:
    """*tasks* in groups that share a node, without those of mode global and one-off containers, which do not move."""
    fixed = {s.name for s in stack.services if s.mode in ("global", "global-job")}
    movable = [t for t in tasks if t.planned and t.service not in fixed]
    return [
        Placed(request, tuple(t.name for t in members), members[0].node, stack.name)
        for request, members in colocate(stack, movable, service_requests(stack, context), context)
    ]


def moves(table: NodeTable, placed: Sequence[Placed], *, limit: int) -> list[Move]:
    """At most *limit* moves, each from a fuller node to an emptier one, the widest difference first.

    *table* has all tasks counted in; tasks that a volume or a bind mount binds to a node do not move. Afterwards the moves are
    counted into the table."""
    where = {one.tasks: table.row[one.node] for one in placed if one.node in table.row}
    out: list[Move] = []
    while len(out) < limit:
        found = _best_move(table, placed, where)
        if found is None:
            return out
        one, target = found
        source = where[one.tasks]
        here, there = table.nodes[source].name, table.nodes[target].name
        out.append(
            Move(
                stack=one.stack,
                tasks=one.tasks,
                source=here,
                target=there,
                reason=f"{here} has {table.tasks[source]} tasks, {there} {table.tasks[target]}",
            )
        )
        table.commit(one.request, source, -1)
        table.commit(one.request, target)
        where[one.tasks] = target
    return out


def _best_move(table: NodeTable, placed: Sequence[Placed], where: dict[tuple[str, ...], int]) -> tuple[Placed, int] | None:
    """The move that evens out most: the widest gap between its two nodes, in tasks; the first of equal ones."""
    best: tuple[int, Placed, int] | None = None
    for one in placed:
        source = where.get(one.tasks)
        if source is None or one.request.pinned:
            continue
        table.commit(one.request, source, -1)
        target = best_node(Feasibility(one.request, table), but=source)
        if target is not None:
            gap = int(table.tasks[source] - table.tasks[target])
            own = table.tasks_of(one.request.service)
            if gap >= 1 and own[source] >= own[target] and (best is None or gap > best[0]):
                best = gap, one, target
        table.commit(one.request, source)
    return (best[1], best[2]) if best else None
