"""Services that the request must be away from are not on the node."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import AffinityFilter
from orchestrator.placement.request import PlacementRequest


class Away(AffinityFilter):
    """`x-placement.away`: the node has no task of any of these services."""

    name = "away"
    together = False

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.away
