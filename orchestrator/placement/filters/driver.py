"""The node has the network driver."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Driver(StaticFilter[tuple[str, str]]):
    """A network driver that is not built in is installed on the node. A condition is (driver, network)."""

    name = "driver"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[str, str]]:
        return request.drivers

    def holds(self, condition: tuple[str, str], table: NodeTable) -> list[bool]:
        return [condition[0] in n.info.drivers for n in table.nodes]

    def describe(self, condition: tuple[str, str], table: NodeTable, row: int, *, ok: bool) -> str:
        driver, network = condition
        return f"network {network} needs the driver {driver}"
