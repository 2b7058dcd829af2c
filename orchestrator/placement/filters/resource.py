"""Countable resources that the operator has declared are free."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters.base import ResourceFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Resource(ResourceFilter[tuple[str, int], str]):
    """`deploy.resources.reservations.generic_resources`: a node declares them as the label `resource.<kind>`. A condition is
    (kind, number)."""

    name = "resource"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[str, int]]:
        return request.reserves.generic

    def mask(self, condition: tuple[str, int], table: NodeTable) -> Mask:
        kind, number = condition
        return table.resource_free(kind) >= number

    def describe(self, condition: tuple[str, int], table: NodeTable, row: int, *, ok: bool) -> str:
        kind, number = condition
        return f"asks {number} {kind}, {table.resource_free(kind)[row]:g} free"

    def capacity(self, condition: tuple[str, int], table: NodeTable) -> Column:
        kind, number = condition
        return table.columns.ints(table.resource_free(kind) // number)

    def resource(self, condition: tuple[str, int]) -> str:
        return condition[0]

    def amount(self, condition: tuple[str, int]) -> int:
        return condition[1]

    def free(self, resource: str, table: NodeTable, row: int) -> int:
        return int(table.resource_free(resource)[row])
