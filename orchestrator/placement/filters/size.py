"""The node's disk can keep a size."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Size(StaticFilter[str]):
    """The file system of the node's state has project quotas, for a size of the writable layer or of a volume. A condition is
    what has the size."""

    name = "size"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.sized

    def holds(self, condition: str, table: NodeTable) -> list[bool]:
        return ["project-quota" in n.info.features for n in table.nodes]

    def describe(self, condition: str, table: NodeTable, row: int, *, ok: bool) -> str:
        return f"the size of {condition} needs ext4 or xfs mounted with prjquota{'' if ok else ', which its disk is not'}"
