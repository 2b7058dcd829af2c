"""Earlier names, for callers that still use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.manifest import Task
from orchestrator.placement.node_table import NodeTable as board_of
from orchestrator.placement.request import PlacementRequest as Demand

__all__ = ["Demand", "board_of", "demand_of_others"]


def demand_of_others(board: board_of, tasks: Iterable[Task], demands: Mapping[str, Demand]) -> None:
    board.commit_tasks(tasks, demands)
