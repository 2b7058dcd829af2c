"""The node is the one that holds the data."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Bound(StaticFilter[tuple[str, str]]):
    """A volume or a bind mount of the request is on this node. A condition is the node's name, and why it must be that one."""

    name = "bound"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[str, str]]:
        return ((request.pinned, request.pinned_by),) if request.pinned else ()

    def holds(self, condition: tuple[str, str], table: NodeTable) -> list[bool]:
        return [n.name == condition[0] for n in table.nodes]

    def describe(self, condition: tuple[str, str], table: NodeTable, row: int, *, ok: bool) -> str:
        node, reason = condition
        return f"{reason} on {node}"
