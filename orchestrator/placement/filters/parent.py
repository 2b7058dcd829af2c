"""The node has the link that a network is made on."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Parent(StaticFilter[tuple[str, str]]):
    """The parent link of a macvlan or ipvlan network is there, or can be made as a VLAN. A condition is (link, network)."""

    name = "parent"

    def conditions(self, request: PlacementRequest) -> Sequence[tuple[str, str]]:
        return request.parents

    def holds(self, condition: tuple[str, str], table: NodeTable) -> list[bool]:
        return [n.info.has_parent_link(condition[0]) for n in table.nodes]

    def describe(self, condition: tuple[str, str], table: NodeTable, row: int, *, ok: bool) -> str:
        parent, network = condition
        text = f"network {network} is on {parent}"
        if ok:
            return text
        info = table.nodes[row].info
        text += f"; it has {', '.join(info.links) or 'no link'}"
        if "." in parent and "vlan" not in info.features:
            text += ", and a kernel without VLANs (CONFIG_VLAN_8021Q)"
        return text
