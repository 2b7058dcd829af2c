"""Services that the request must be near are on the node."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import AffinityFilter
from orchestrator.placement.request import PlacementRequest


class Near(AffinityFilter):
    """`x-placement.near`: the node has a task of each of these services."""

    name = "near"
    together = True

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.near
