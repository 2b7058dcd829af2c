"""The node has fewer tasks of the service than it may have."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters.base import ResourceFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class MaxPerNode(ResourceFilter[tuple[str, int], tuple[str, int]]):
    """`deploy.placement.max_replicas_per_node` (Compose Deploy Specification). A condition is (service, most)."""

    name = "max_replicas_per_node"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[str, int]]:
        most = request.placement.max_per_node
        return ((request.service, most),) if most else ()

    def mask(self, condition: tuple[str, int], table: NodeTable) -> Mask:
        service, most = condition
        return table.tasks_of(service) < most

    def describe(self, condition: tuple[str, int], table: NodeTable, row: int, *, ok: bool) -> str:
        service, most = condition
        return f"has {int(table.tasks_of(service)[row])} of at most {most}"

    def capacity(self, condition: tuple[str, int], table: NodeTable) -> Column:
        service, most = condition
        return most - table.tasks_of(service)

    def resource(self, condition: tuple[str, int]) -> tuple[str, int]:
        return condition

    def free(self, resource: tuple[str, int], table: NodeTable, row: int) -> int:
        service, most = resource
        return most - int(table.tasks_of(service)[row])
