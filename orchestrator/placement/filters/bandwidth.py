"""The node can limit bandwidth."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Bandwidth(StaticFilter[str]):
    """The kernel has what holds back packets (ifb), for a limit of bandwidth. A condition is the network."""

    name = "bandwidth"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.limited

    def holds(self, condition: str, table: NodeTable) -> list[bool]:
        return ["ifb" in n.info.features for n in table.nodes]

    def describe(self, condition: str, table: NodeTable, row: int, *, ok: bool) -> str:
        return f"x-bandwidth on network {condition} needs the kernel's ifb{'' if ok else ' (CONFIG_IFB), which it has not'}"
