"""Constraints in the wider grammar of `x-placement` hold."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.constraint import Constraint
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile import constraints as grammar


class ExtendedConstraint(Constraint):
    """`x-placement.constraints`: in, exists, matches and comparisons too. A condition is one constraint."""

    name = "x-placement"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.placement.extended

    def parse(self, text: str) -> grammar.Constraint:
        return grammar.parse_extended(text)
