"""The exact solver: finds a placement of everything where there is one, or proves that there is none (CP-SAT of OR-Tools).

It is used only if the greedy solver fails (decision 0025). It may move tasks that have a node, as few as possible."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import PystackError
from orchestrator.placement.feasibility import static_mask
from orchestrator.placement.filters import FILTERS
from orchestrator.placement.filters.base import AffinityFilter, ResourceFilter
from orchestrator.placement.greedy import TaskGroup
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

SECONDS = 10.0
STAYING = 1000
"""What a copy that stays is worth, in tasks on the fullest node."""

Counts = Sequence[Mapping[int, Any]]
"""For each group, by row: the variable that says how many of its copies are there."""


class NoSolverError(PystackError):
    """OR-Tools is not installed."""


class UndecidedError(PystackError):
    """The time was too short for an answer."""


def solve(
    table: NodeTable, groups: Sequence[TaskGroup], homes: Sequence[Sequence[int]] = (), *, seconds: float = SECONDS
) -> list[list[int]] | None:
    """For each group the rows of its copies, all of them; None where that is proven impossible.

    *table* has counted in what cannot move; *homes* has for each group the rows where its copies are now. Deterministic.
    Raises NoSolverError, UndecidedError."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise NoSolverError("the exact solver is not installed: pip install 'pystack-orchestrator[exact]'") from None
    model = cp_model.CpModel()
    counts = _counts(model, table, groups)
    _limit_resources(model, table, groups, counts)
    _keep_affinities(model, table, groups, counts)
    fullest = _fullest(model, table, groups, counts)
    model.minimize(fullest - STAYING * sum(_stayed(model, counts, homes)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1  # several would race, and the same question could have two answers
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise UndecidedError(f"whether all tasks fit was not decided within {seconds:g} s")
    return [[n for n, var in here.items() for _ in range(solver.value(var))] for here in counts]


def _counts(model: Any, table: NodeTable, groups: Sequence[TaskGroup]) -> list[dict[int, Any]]:
    """Variables for the nodes that pass the static filters; all copies of a group are somewhere."""
    counts = []
    for i, group in enumerate(groups):
        mask = static_mask(group.request, table)
        here = {n: model.new_int_var(0, group.count, f"x{i}_{n}") for n in range(len(table)) if mask[n]}
        model.add(sum(here.values()) == group.count)
        counts.append(here)
    return counts


def _limit_resources(model: Any, table: NodeTable, groups: Sequence[TaskGroup], counts: Counts) -> None:
    """On each node the copies use at most what is free of each resource."""
    for one in (f for f in FILTERS if isinstance(f, ResourceFilter)):
        for resource, users in _users(one, groups).items():
            for n in range(len(table)):
                if used := [amount * counts[i][n] for i, amount in users if amount and n in counts[i]]:
                    model.add(sum(used) <= max(0, one.free(resource, table, n)))


def _users(one: ResourceFilter[Any, Any], groups: Sequence[TaskGroup]) -> dict[Hashable, list[tuple[int, int]]]:
    """By resource: the groups that use it, by number, and how much each of their copies does."""
    users: dict[Hashable, list[tuple[int, int]]] = {}
    for i, group in enumerate(groups):
        for condition in one.conditions(group.request):
            users.setdefault(one.resource(condition), []).append((i, one.amount(condition)))
    return users


def _keep_affinities(model: Any, table: NodeTable, groups: Sequence[TaskGroup], counts: Counts) -> None:
    """Copies are on nodes with every service that they must be near, and with none that they must be away from."""
    group_of = {g.request.service: i for i, g in enumerate(groups)}
    flags: dict[tuple[int, int], Any] = {}

    def is_there(i: int, n: int) -> Any:
        if (i, n) not in flags:
            flag = model.new_bool_var(f"p{i}_{n}")
            model.add(counts[i][n] >= 1).only_enforce_if(flag)
            model.add(counts[i][n] == 0).only_enforce_if(~flag)
            flags[i, n] = flag
        return flags[i, n]

    for i, group in enumerate(groups):
        for service, together in _affinities(group.request):
            there, other = table.tasks_of(service), group_of.get(service)
            for n, count in counts[i].items():
                can_come = other is not None and n in counts[other]
                if together and not there[n]:
                    if can_come:
                        model.add_implication(is_there(i, n), is_there(other, n))  # type: ignore[arg-type]
                    else:
                        model.add(count == 0)
                elif not together and there[n]:
                    model.add(count == 0)
                elif not together and can_come and other != i:
                    model.add(is_there(i, n) + is_there(other, n) <= 1)  # type: ignore[arg-type]


def _affinities(request: PlacementRequest) -> Iterator[tuple[str, bool]]:
    """Services that must be on the request's node (True) or must not (False)."""
    for one in (f for f in FILTERS if isinstance(f, AffinityFilter)):
        for service in one.conditions(request):
            yield service, one.together


def _fullest(model: Any, table: NodeTable, groups: Sequence[TaskGroup], counts: Counts) -> Any:
    """The number of tasks on the fullest node."""
    most = int(max(table.tasks, default=0)) + sum(g.count * g.request.tasks for g in groups)
    fullest = model.new_int_var(0, most, "top")
    for n in range(len(table)):
        placed = sum(g.request.tasks * here[n] for g, here in zip(groups, counts, strict=True) if n in here)
        model.add(int(table.tasks[n]) + placed <= fullest)
    return fullest


def _stayed(model: Any, counts: Counts, homes: Sequence[Sequence[int]]) -> list[Any]:
    """For each group and node where copies of it are now: how many of them stay."""
    out: list[Any] = []
    for i, rows in enumerate(homes):
        for n in sorted(set(rows)):
            if n in counts[i]:
                stays = model.new_int_var(0, rows.count(n), f"s{i}_{n}")
                model.add(stays <= counts[i][n])
                out.append(stays)
    return out
