"""Chooses the node of each task of a stack. Tasks that have a node stay, unless that no longer passes the filters. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agent.contract.task import Task
from orchestrator.placement.colocation import Colocated, colocate, group_equal
from orchestrator.placement.context import PlacementContext, request_of, service_requests, table_with
from orchestrator.placement.explain import UnschedulableError, refusal
from orchestrator.placement.feasibility import Feasibility, count_static_candidates, static_mask
from orchestrator.placement.greedy import TaskGroup, place
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Service, Stack

PROVEN = "proven: no placement of the whole stack exists"


def is_eligible(stack: Stack, service: Service, context: PlacementContext) -> list[str]:
    """The nodes that a service of mode global has a task on; none while all suitable ones are down or drained. One whose disk
    has no room keeps the task that it has, and starts another one when it has room again.

    Raises UnschedulableError if no node is suitable even then."""
    request = request_of(stack, service, context)
    roomy = [msgspec.structs.replace(n, info=msgspec.structs.replace(n.info, problem="")) for n in context.nodes]
    fit = static_mask(request, NodeTable(roomy, context.ready))
    if not any(fit):
        nodes = [msgspec.structs.replace(n, availability="active") for n in roomy]
        at_best = NodeTable(nodes, {n.name for n in nodes})
        if not count_static_candidates(request, at_best):
            raise UnschedulableError(refusal(at_best, request, f"service {service.name}", service.where))
    return [n.name for n, ok in zip(context.nodes, fit, strict=True) if ok]


class Settled(NamedTuple):
    """Where those of a stack's tasks are that stay: their *chosen* nodes, by name, counted into *table*. *colocated* are all of
    its tasks, *to_place* those without a node; *where* has the present node of each."""

    table: NodeTable
    chosen: dict[str, str]
    where: Mapping[str, str]
    colocated: list[Colocated]
    to_place: list[Colocated]


def settle(stack: Stack, tasks: Sequence[Task], current: Sequence[Task], context: PlacementContext) -> Settled:
    """Tasks that have a node stay there, unless it no longer passes the filters."""
    requests = service_requests(stack, context)
    fixed = [t for t in tasks if t.node]  # of mode global: its node is part of its identity
    table = table_with(context, fixed, requests)
    where = {t.name: context.moves.get(t.name, t.node) for t in current}
    colocated = colocate(stack, [t for t in tasks if not t.node], requests, context)
    chosen = {t.name: t.node for t in fixed}
    staying = functools.cache(lambda request: Feasibility(msgspec.structs.replace(request, staying=True), table))
    to_place: list[Colocated] = []
    for request, members in colocated:
        homes = {where[t.name] for t in members if t.name in where}
        home = homes.pop() if len(homes) == 1 else ""
        if home in table.row and (_is_paused(table, table.row[home]) or staying(request).mask()[table.row[home]]):
            if context.reserving(members):
                table.commit(request, table.row[home])
            chosen |= dict.fromkeys((t.name for t in members), home)
        else:
            to_place.append((request, members))
    return Settled(table, chosen, where, colocated, to_place)


def assign(stack: Stack, tasks: Sequence[Task], current: Sequence[Task], context: PlacementContext) -> list[Task]:
    """*tasks* with their nodes. Raises UnschedulableError with every reason if one of them cannot be placed."""
    table, chosen, where, colocated, to_place = settle(stack, tasks, current, context)
    copies_of, groups = group_equal(to_place)
    left_over: list[tuple[PlacementRequest, Task]] = []
    for group, copies, rows in zip(groups, copies_of, place(table, groups), strict=True):
        for members, row in zip(copies, rows, strict=False):
            chosen |= dict.fromkeys((t.name for t in members), table.nodes[row].name)
        for members in copies[len(rows) :]:
            home = where.get(members[0].name, "")
            if waits_for(home, group.request, context):
                chosen |= dict.fromkeys((t.name for t in members), home)
            else:
                left_over.append((group.request, members[0]))
    if left_over:
        fixed = [t for t in tasks if t.node]
        try:
            chosen |= _place_exactly(colocated, where, context, table_with(context, fixed, service_requests(stack, context)))
        except UnschedulableError as error:
            refusals = [refusal(table, request, task.name, task.where) for request, task in left_over]
            raise UnschedulableError("\n".join([*refusals, f"    ({error})"])) from None
    return [msgspec.structs.replace(t, node=chosen[t.name]) for t in tasks]


def place_oneoff(stack: Stack, oneoff: Task, tasks: Sequence[Task], context: PlacementContext) -> Task:
    """*oneoff* on the node that a further task of its service would get; it is not a replica, so no number of replicas on
    a node keeps it off. Raises UnschedulableError."""
    requests = service_requests(stack, context)
    table = table_with(context, tasks, requests)
    request = oneoff_request(requests[f"{stack.name}/{oneoff.service}"])
    [rows] = place(table, [TaskGroup(request, 1)])
    if not rows:
        raise UnschedulableError(refusal(table, request, oneoff.name, oneoff.where))
    return msgspec.structs.replace(oneoff, node=table.nodes[rows[0]].name)


def oneoff_request(request: PlacementRequest) -> PlacementRequest:
    """What a further task of a service asks for that is not a replica, where its replicas ask for *request*."""
    unlimited = msgspec.structs.replace(request.placement, max_per_node=0)
    return msgspec.structs.replace(request, ports=frozenset(), placement=unlimited)


def waits_for(home: str, request: PlacementRequest, context: PlacementContext) -> bool:
    """Whether a task that is on *home* can be nowhere but on nodes that are silent: it stays, and holds the rest of its stack
    up no more than it must."""
    table = NodeTable(context.nodes, {n.name for n in context.nodes})
    fit = {n.name for n, ok in zip(context.nodes, static_mask(request, table), strict=True) if ok}
    return home in fit and not fit & set(context.ready)


def _is_paused(table: NodeTable, row: int) -> bool:
    """Whether the node is paused and answers: its tasks stay, however little it has free."""
    return table.nodes[row].availability == "pause" and bool(table.ready[row])


def _place_exactly(
    colocated: Sequence[Colocated], where: Mapping[str, str], context: PlacementContext, table: NodeTable
) -> dict[str, str]:
    """The whole stack placed again by the exact solver, with as few moves as possible: nodes by task.

    *where* has the present node of each task; *table* has the tasks that cannot move. Raises UnschedulableError."""
    if len(context.nodes) < 2:
        raise UnschedulableError(PROVEN)
    # not at the top: OR-Tools is large, and rarely needed
    from orchestrator.placement.exact import NoSolverError, UndecidedError, solve

    copies_of, groups = group_equal(colocated)
    homes = [[table.row[where[m[0].name]] for m in copies if where.get(m[0].name) in table.row] for copies in copies_of]
    try:
        found = solve(table, groups, homes)
    except (NoSolverError, UndecidedError) as error:
        raise UnschedulableError(str(error)) from None
    if found is None:
        raise UnschedulableError(PROVEN)
    out: dict[str, str] = {}
    for copies, rows in zip(copies_of, found, strict=True):
        free = [table.nodes[n].name for n in rows]
        waiting = []
        for members in copies:  # those that can stay do, the others take what is left
            home = where.get(members[0].name, "")
            if home in free:
                free.remove(home)
                out |= dict.fromkeys((t.name for t in members), home)
            else:
                waiting.append(members)
        for members, node in zip(waiting, free, strict=True):
            out |= dict.fromkeys((t.name for t in members), node)
    return out
