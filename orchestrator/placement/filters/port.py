"""A port of the node itself is free."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters.base import ResourceFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest, PortKey


class Port(ResourceFilter[PortKey, PortKey]):
    """`ports` with `mode: host` (Compose Specification): one task a node holds each. A condition is (port, protocol)."""

    name = "port"

    def conditions(self, request: PlacementRequest) -> Sequence[PortKey]:
        return sorted(request.ports) if request.ports else ()

    def mask(self, condition: PortKey, table: NodeTable) -> Mask:
        return table.port_taken(condition) == 0

    def describe(self, condition: PortKey, table: NodeTable, row: int, *, ok: bool) -> str:
        port, protocol = condition
        return f"{port}/{protocol} is {'free' if ok else 'taken'}"

    def capacity(self, condition: PortKey, table: NodeTable) -> Column:
        return 1 - table.port_taken(condition)

    def resource(self, condition: PortKey) -> PortKey:
        return condition

    def free(self, resource: PortKey, table: NodeTable, row: int) -> int:
        return 1 - int(table.port_taken(resource)[row])
