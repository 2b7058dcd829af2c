"""The node's disk has room."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import ALWAYS, StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Disk(StaticFilter[tuple[()]]):
    """The disk of the node's state is not full, nor below what `reserve.disk` keeps of it: no container would start there. A
    task that is there already stays."""

    name = "disk"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[()]]:
        return () if request.staying else ALWAYS

    def holds(self, condition: tuple[()], table: NodeTable) -> list[bool]:
        return [not n.info.problem for n in table.nodes]

    def describe(self, condition: tuple[()], table: NodeTable, row: int, *, ok: bool) -> str:
        return "its disk has room" if ok else table.nodes[row].info.problem
