"""Reserved cores fit."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters.base import ResourceFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

TOLERANCE = 1e-9
"""Cores; what adding and taking away fractions may lose."""
MILLI = 1000


class Cpus(ResourceFilter[float, str]):
    """`deploy.resources.reservations.cpus` (Compose Deploy Specification), not the limit. A condition is a number of cores."""

    name = "cpus"

    def conditions(self, request: PlacementRequest) -> Sequence[float]:
        return (request.reserves.cpus,) if request.reserves.cpus else ()

    def mask(self, condition: float, table: NodeTable) -> Mask:
        return table.cpus_free >= condition - TOLERANCE

    def describe(self, condition: float, table: NodeTable, row: int, *, ok: bool) -> str:
        return f"asks {condition:g}, {table.cpus_free[row]:g} of {table.nodes[row].info.cpus:g} free"

    def capacity(self, condition: float, table: NodeTable) -> Column:
        return table.columns.ints((table.cpus_free + TOLERANCE) // condition)

    def resource(self, condition: float) -> str:
        return self.name

    def amount(self, condition: float) -> int:
        """In thousandths of a core."""
        return round(condition * MILLI)

    def free(self, resource: str, table: NodeTable, row: int) -> int:
        return int(table.cpus_free[row] * MILLI)
