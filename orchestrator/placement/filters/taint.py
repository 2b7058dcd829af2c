"""The node's taints are tolerated."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.placement.taints import against

Tolerations = tuple[tuple[str, ...], bool]
"""The tolerations of a request, and whether it is *staying*."""


class Taint(StaticFilter[Tolerations]):
    """`x-placement.tolerations` cover all that keeps a new task off, or sends away one that is there (Kubernetes, Taints and
    Tolerations)."""

    name = "taint"

    def conditions(self, request: PlacementRequest) -> Sequence[Tolerations]:
        return ((request.placement.tolerations, request.staying),)

    def holds(self, condition: Tolerations, table: NodeTable) -> list[bool]:
        tolerations, staying = condition
        return [not n.taints or not against(n.taints, tolerations, staying=staying) for n in table.nodes]

    def describe(self, condition: Tolerations, table: NodeTable, row: int, *, ok: bool) -> str:
        taints = table.nodes[row].taints
        if not taints:
            return ""
        if ok:
            return f"tolerates {', '.join(taints)}"
        tolerations, staying = condition
        return ", ".join(against(taints, tolerations, staying=staying))
