"""Constraints in the wider grammar of `x-placement` hold."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement import constraints
from orchestrator.placement.filters.constraint import Constraint
from orchestrator.placement.request import PlacementRequest


class ExtendedConstraint(Constraint):
    """`x-placement.constraints`: in, exists, matches and comparisons too. A condition is one constraint."""

    name = "x-placement"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.placement.extended

    def parse(self, text: str) -> constraints.Constraint:
        return constraints.parse_extended(text)
