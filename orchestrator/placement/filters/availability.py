"""The node takes new tasks."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import ALWAYS, StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Availability(StaticFilter[tuple[()]]):
    """The node is active, not paused or drained (`pystack node pause`, `drain`; Swarm's availability)."""

    name = "availability"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[()]]:
        return ALWAYS

    def holds(self, condition: tuple[()], table: NodeTable) -> list[bool]:
        return [n.availability == "active" for n in table.nodes]

    def describe(self, condition: tuple[()], table: NodeTable, row: int, *, ok: bool) -> str:
        return f"is {table.nodes[row].availability}"
