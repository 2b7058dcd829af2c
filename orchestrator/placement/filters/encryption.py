"""The node can encrypt overlay networks."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Encryption(StaticFilter[str]):
    """WireGuard is there, in the kernel or as a program, for an encrypted overlay. A condition is the network."""

    name = "encryption"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.encrypted

    def holds(self, condition: str, table: NodeTable) -> list[bool]:
        return ["wireguard" in n.info.features for n in table.nodes]

    def describe(self, condition: str, table: NodeTable, row: int, *, ok: bool) -> str:
        lacks = "" if ok else ": it is neither in the kernel nor is wireguard-go installed"
        return f"network {condition} needs WireGuard{lacks}"
