"""Reserved memory fits."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters.base import ResourceFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

MIB = 1 << 20


class Memory(ResourceFilter[int, str]):
    """`deploy.resources.reservations.memory` (Compose Deploy Specification), not the limit. A condition is in bytes."""

    name = "memory"

    def conditions(self, request: PlacementRequest) -> Sequence[int]:
        return (request.reserves.memory,) if request.reserves.memory else ()

    def mask(self, condition: int, table: NodeTable) -> Mask:
        return table.memory_free >= condition

    def describe(self, condition: int, table: NodeTable, row: int, *, ok: bool) -> str:
        return f"asks {_size(condition)}, {_size(table.memory_free[row])} of {_size(table.nodes[row].info.memory)} free"

    def capacity(self, condition: int, table: NodeTable) -> Column:
        return table.columns.ints(table.memory_free // condition)

    def resource(self, condition: int) -> str:
        return self.name

    def amount(self, condition: int) -> int:
        """In MiB."""
        return -(-condition // MIB)

    def free(self, resource: str, table: NodeTable, row: int) -> int:
        return int(table.memory_free[row] // MIB)


def _size(number: float) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if number >= 1 << shift:
            return f"{number / (1 << shift):.1f} {unit}"
    return f"{number:.0f} B"
