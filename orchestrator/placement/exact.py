"""The exact solver: finds a placement of everything where there is one, or proves that there is none (CP-SAT).

It is asked only when the fast way leaves something over, and may move tasks that are placed, as few as it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.errors import PystackError
from orchestrator.placement.board import Board
from orchestrator.placement.solve import Unit

SECONDS = 10.0
MILLI = 1000


class NoSolverError(PystackError):
    """OR-Tools is not installed."""


class UndecidedError(PystackError):
    """The time was too short for an answer."""


def solve(
    board: Board, units: Sequence[Unit], homes: Sequence[Sequence[int]] = (), *, seconds: float = SECONDS
) -> list[list[int]] | None:
    """For each unit the nodes of its copies, all of them; None where that is proven impossible.

    *board* has in it what cannot move; *homes* says for each unit where its copies are now. Deterministic. Raises
    NoSolverError, UndecidedError."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise NoSolverError("the exact solver is not installed: pip install 'pystack-orchestrator[exact]'") from None
    model = cp_model.CpModel()
    nodes = range(len(board.nodes))
    static = [board.static(u.demand) for u in units]
    x = [
        {n: model.new_int_var(0, u.count, f"x{i}_{n}") for n in nodes if static[i][n]} for i, u in enumerate(units)
    ]
    for i, unit in enumerate(units):
        model.add(sum(x[i].values()) == unit.count)
        if limit := unit.demand.placement.max_per_node:
            for n, var in x[i].items():
                model.add(var <= max(0, limit - int(board.of(unit.demand.service)[n])))
    present: dict[tuple[int, int], cp_model.IntVar] = {}

    def is_there(i: int, n: int) -> cp_model.IntVar:
        if (i, n) not in present:
            flag = model.new_bool_var(f"p{i}_{n}")
            model.add(x[i][n] >= 1).only_enforce_if(flag)
            model.add(x[i][n] == 0).only_enforce_if(~flag)
            present[i, n] = flag
        return present[i, n]

    of = {u.demand.service: i for i, u in enumerate(units)}
    kinds = {k for u in units for k, _ in u.demand.reserves.generic}
    ports = {p for u in units for p in u.demand.ports}
    for n in nodes:
        here = [(i, x[i][n]) for i in range(len(units)) if n in x[i]]
        if not here:
            continue
        _limit(model, [(round(units[i].demand.reserves.cpus * MILLI), v) for i, v in here], int(board.cpus[n] * MILLI))
        mebi = 1 << 20
        _limit(model, [(-(-units[i].demand.reserves.memory // mebi), v) for i, v in here], int(board.memory[n] // mebi))
        for kind in kinds:
            asked = [(dict(units[i].demand.reserves.generic).get(kind, 0), v) for i, v in here]
            _limit(model, asked, int(board.free(kind)[n]))
        for port in ports:
            taken = int(board.port(port)[n])
            _limit(model, [(1, v) for i, v in here if port in units[i].demand.ports], 1 - taken)
        for i, _ in here:
            for service in units[i].demand.away:
                if board.of(service)[n] > 0:
                    model.add(x[i][n] == 0)
                elif service in of and n in x[of[service]] and of[service] != i:
                    model.add(is_there(i, n) + is_there(of[service], n) <= 1)
            for service in units[i].demand.near:
                if board.of(service)[n] == 0:
                    if service in of and n in x[of[service]]:
                        model.add_implication(is_there(i, n), is_there(of[service], n))
                    else:
                        model.add(x[i][n] == 0)
    top = model.new_int_var(0, int(max(board.total, default=0)) + sum(u.count * u.demand.tasks for u in units), "top")
    for n in nodes:
        model.add(int(board.total[n]) + sum(units[i].demand.tasks * x[i][n] for i in range(len(units)) if n in x[i]) <= top)
    stayed = _stayed(model, x, homes)
    model.minimize(top - 1000 * sum(stayed))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1  # several would race, and the same question could have two answers
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise UndecidedError(f"whether all tasks fit was not decided within {seconds:g} s")
    return [[n for n, var in x[i].items() for _ in range(solver.value(var))] for i in range(len(units))]


def _limit(model: Any, parts: Sequence[tuple[int, Any]], free: int) -> None:
    if asked := [(weight, var) for weight, var in parts if weight]:
        model.add(sum(weight * var for weight, var in asked) <= max(0, free))


def _stayed(model: Any, x: Sequence[dict[int, Any]], homes: Sequence[Sequence[int]]) -> list[Any]:
    """For each unit and node where copies of it are now: how many of them stay."""
    out: list[Any] = []
    for i, places in enumerate(homes):
        for n, count in zip(*np.unique(places, return_counts=True), strict=True) if len(places) else ():
            if int(n) in x[i]:
                stays = model.new_int_var(0, int(count), f"s{i}_{n}")
                model.add(stays <= x[i][int(n)])
                out.append(stays)
    return out
