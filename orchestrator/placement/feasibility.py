"""Which nodes can take a request: all filters together."""

from __future__ import annotations

from typing import Any

from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.filters import FILTERS
from orchestrator.placement.filters.base import Reason, ResourceFilter, StaticFilter
from orchestrator.placement.node_table import NodeTable, OneRow
from orchestrator.placement.request import PlacementRequest

STATIC_FILTERS = tuple(f for f in FILTERS if f.static)
_KEPT_FILTERS = tuple(f for f in STATIC_FILTERS if isinstance(f, StaticFilter))
_LIVE_FILTERS = tuple(f for f in STATIC_FILTERS if not isinstance(f, StaticFilter))
_CHANGING_FILTERS = tuple(f for f in FILTERS if not f.static)
_RESOURCE_FILTERS: tuple[ResourceFilter[Any, Any], ...] = tuple(f for f in FILTERS if isinstance(f, ResourceFilter))
UNLIMITED = 1 << 40


class Feasibility:
    """The nodes that can take *request*: what cannot change is looked up once, the rest each time that `mask` is asked."""

    def __init__(self, request: PlacementRequest, table: NodeTable) -> None:
        self.request, self.table = request, table
        self._static = static_mask(request, table)
        self._changing = [(f, condition) for f in _CHANGING_FILTERS for condition in f.conditions(request)]

    def mask(self) -> Mask:
        """Shape (N,): the nodes that can take one more copy now. The caller's own to change."""
        mask = self._static.copy()
        for one, condition in self._changing:
            mask &= one.mask(condition, self.table)
        return mask

    def fits(self, row: int) -> bool:
        """Whether the node at *row*, one of `mask` before, can take one more copy now."""
        if not self._changing:
            return True
        only = OneRow(self.table, row)
        return all(one.mask(condition, only)[0] for one, condition in self._changing)


def static_mask(request: PlacementRequest, table: NodeTable) -> Mask:
    """Shape (N,): the nodes that no placement of other tasks can make unfit. The caller's own to change."""
    conditions = tuple((f, condition) for f in _KEPT_FILTERS for condition in f.conditions(request))

    def together() -> Mask:
        mask = table.columns.mask([True] * len(table))
        for one, condition in conditions:
            mask &= one.mask(condition, table)
        return mask

    mask = table.static_mask(conditions, together).copy()
    for one in _LIVE_FILTERS:
        for condition in one.conditions(request):
            mask &= one.mask(condition, table)
    return mask


def count_static_candidates(request: PlacementRequest, table: NodeTable) -> int:
    """How many nodes no placement of other tasks can make unfit."""
    return table.columns.count(static_mask(request, table))


def capacity_for(request: PlacementRequest, table: NodeTable) -> Column:
    """Shape (N,): how many more copies of *request* each node can take, for what it has free; UNLIMITED where nothing ends."""
    left = table.columns.full(len(table), UNLIMITED)
    for one in _RESOURCE_FILTERS:
        for condition in one.conditions(request):
            left = table.columns.minimum(left, one.capacity(condition, table))
    return left


def explain_nodes(request: PlacementRequest, table: NodeTable) -> list[list[Reason]]:
    """Every filter's reasons on each node, in the order of the rows; a node is feasible if all of its are ok."""
    masks = [(one, [(c, one.mask(c, table).tolist()) for c in one.conditions(request)]) for one in FILTERS]
    asked = [(one, known) for one, known in masks if known]
    return [[f for one, known in asked for f in one.reasons(known, table, row)] for row in range(len(table))]
