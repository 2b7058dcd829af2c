"""Places a stack beside tasks of other priorities: who finds no room takes that of tasks of lower ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

import msgspec

from agent.contract.task import Task
from orchestrator.placement.assign import assign, oneoff_request, place_oneoff, settle, waits_for
from orchestrator.placement.colocation import Colocated, colocate, group_equal
from orchestrator.placement.context import PlacementContext, service_requests, table_with
from orchestrator.placement.eviction import Eviction
from orchestrator.placement.explain import UnschedulableError
from orchestrator.placement.greedy import difficulty, place
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.preemption import RoomMaker
from orchestrator.stackfile.model import Stack


class Arrangement(NamedTuple):
    """*tasks* with their nodes; *evicted* have to go for them, and *pending* have had to go before and find no room yet."""

    tasks: list[Task]
    evicted: tuple[Eviction, ...] = ()
    pending: tuple[Eviction, ...] = ()


def arrange(stack: Stack, tasks: Sequence[Task], current: Sequence[Task], context: PlacementContext) -> Arrangement:
    """*tasks* with their nodes, as `assign` gives them; where one fits nowhere, tasks of lower priorities go. Those that
    went before (`context.preempted`) are placed where there is room for them, and left out where there is not.

    Raises UnschedulableError with every reason if another one cannot be placed."""
    must = [t for t in tasks if t.name not in context.preempted]
    evicted: tuple[Eviction, ...] = ()
    try:
        placed = assign(stack, must, current, context)
    except UnschedulableError:
        found = _with_evictions(stack, must, current, context)
        if found is None:
            raise
        placed, evicted = found
    back = [t for t in tasks if t.name in context.preempted]
    if not back:
        return Arrangement(placed, evicted)
    gone = {e.task for e in evicted}
    beside = msgspec.structs.replace(context, others=[t for t in context.others if t.name not in gone])
    nodes, more = _fill(stack, placed, back, beside)
    gone |= {e.task for e in more}
    placed = [t for t in placed if t.name not in gone]
    placed += [msgspec.structs.replace(t, node=nodes[t.name]) for t in back if t.name in nodes]
    pending = tuple(context.preempted[t.name] for t in back if t.name not in nodes)
    order = {t.name: i for i, t in enumerate(tasks)}
    return Arrangement(sorted(placed, key=lambda t: order[t.name]), (*evicted, *more), pending)


def reassign(
    stack: Stack, tasks: Sequence[Task], context: PlacementContext, lost: Set[str]
) -> tuple[dict[str, str], tuple[Eviction, ...]]:
    """Nodes, by task, for those of *tasks* whose names are in *lost*, and who has to go for them; the others stay. A task that
    fits nowhere is left out."""
    stay = [t for t in tasks if t.name not in lost]
    return _fill(stack, stay, [t for t in tasks if t.name in lost], context)


def arrange_oneoff(
    stack: Stack, oneoff: Task, tasks: Sequence[Task], context: PlacementContext
) -> tuple[Task, tuple[Eviction, ...]]:
    """*oneoff* on a node, as `place_oneoff` has it, and the tasks of lower priorities that have to go for it. Raises
    UnschedulableError."""
    try:
        return place_oneoff(stack, oneoff, tasks, context), ()
    except UnschedulableError:
        requests = service_requests(stack, context)
        maker = RoomMaker(stack, tasks, context, table_with(context, tasks, requests))
        if not (node := maker.place(oneoff_request(requests[f"{stack.name}/{oneoff.service}"]), [oneoff])):
            raise
        return msgspec.structs.replace(oneoff, node=node), tuple(maker.evicted)


def _with_evictions(
    stack: Stack, tasks: Sequence[Task], current: Sequence[Task], context: PlacementContext
) -> tuple[list[Task], tuple[Eviction, ...]] | None:
    """*tasks* that can stay do, the others are placed from the highest priority down. None if one of them fits nowhere."""
    settled = settle(stack, tasks, current, context)
    there = [msgspec.structs.replace(t, node=settled.chosen[t.name]) for t in tasks if t.name in settled.chosen]
    maker = RoomMaker(stack, there, context, settled.table)
    chosen = settled.chosen | _place_down(settled.to_place, settled.table, maker)
    for request, members in settled.to_place:
        home = settled.where.get(members[0].name, "")
        if members[0].name not in chosen and waits_for(home, request, context):
            chosen |= dict.fromkeys((t.name for t in members), home)
    gone = {e.task for e in maker.evicted}
    left = [t for t in tasks if t.name not in gone]
    if any(t.name not in chosen for t in left):
        return None
    return [msgspec.structs.replace(t, node=chosen[t.name]) for t in left], tuple(maker.evicted)


def _fill(
    stack: Stack, there: Sequence[Task], more: Sequence[Task], context: PlacementContext
) -> tuple[dict[str, str], tuple[Eviction, ...]]:
    """Nodes for those of *more* that find room beside *there*, and who has to go for them."""
    requests = service_requests(stack, context)
    table = table_with(context, there, requests)
    maker = RoomMaker(stack, there, context, table)
    return _place_down(colocate(stack, more, requests, context), table, maker), tuple(maker.evicted)


def _place_down(colocated: Sequence[Colocated], table: NodeTable, maker: RoomMaker) -> dict[str, str]:
    """Nodes, by task, from the highest priority down: tasks of a lower one are placed when those of a higher one have their
    room. Those that fit nowhere are left out."""
    nodes: dict[str, str] = {}
    for priority in sorted({request.priority for request, _ in colocated}, reverse=True):
        copies_of, groups = group_equal([one for one in colocated if one[0].priority == priority])
        left: list[Colocated] = []
        for group, copies, rows in zip(groups, copies_of, place(table, groups), strict=True):
            for members, row in zip(copies, rows, strict=False):
                node = table.nodes[row].name
                nodes |= dict.fromkeys((t.name for t in members), node)
                maker.add([msgspec.structs.replace(t, node=node) for t in members])
            left += [(group.request, members) for members in copies[len(rows) :]]
        for request, members in sorted(left, key=lambda one: difficulty(table, one[0])):
            if found := maker.place(request, members):
                nodes |= dict.fromkeys((t.name for t in members), found)
    return nodes
