"""Constraints on the node's labels and info."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement import constraints
from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile import constraints as grammar


class Constraint(StaticFilter[str]):
    """`deploy.placement.constraints` (Compose Deploy Specification), in Swarm's grammar. A condition is one constraint."""

    name = "constraint"

    def conditions(self, request: PlacementRequest) -> Sequence[str]:
        return request.placement.constraints

    def parse(self, text: str) -> grammar.Constraint:
        """*text* in the grammar of this filter; the loader has checked that it can be read."""
        return grammar.parse(text)

    def holds(self, condition: str, table: NodeTable) -> list[bool]:
        rule = self.parse(condition)
        return [constraints.matches(rule, n) for n in table.nodes]

    def describe(self, condition: str, table: NodeTable, row: int, *, ok: bool) -> str:
        node, key = table.nodes[row], self.parse(condition).key
        has = node.underlay if key.lower() == "node.ip" else constraints.value_of(key, node)
        return f"{condition} (it has {has or 'none'})"
