"""The node answers."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Mask
from orchestrator.placement.filters.base import ALWAYS, Filter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Ready(Filter[tuple[()]]):
    """The node's agent answers the server."""

    name = "ready"
    static = True

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[()]]:
        return ALWAYS

    def mask(self, condition: tuple[()], table: NodeTable) -> Mask:
        return table.ready

    def describe(self, condition: tuple[()], table: NodeTable, row: int, *, ok: bool) -> str:
        return "answers" if ok else "does not answer"
