"""The node has the devices."""

from __future__ import annotations

from collections.abc import Sequence

from agent.contract.container import DeviceRequest, device_kind
from orchestrator.placement.filters.base import StaticFilter
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest


class Devices(StaticFilter[DeviceRequest]):
    """`deploy.resources.reservations.devices` (Compose Deploy Specification): the node has such devices. They are not counted
    out: tasks share them. A condition is one request for devices."""

    name = "devices"

    def conditions(self, request: PlacementRequest) -> Sequence[DeviceRequest]:
        return request.devices

    def holds(self, condition: DeviceRequest, table: NodeTable) -> list[bool]:
        return [condition.choose(n.info.devices) is not None for n in table.nodes]

    def describe(self, condition: DeviceRequest, table: NodeTable, row: int, *, ok: bool) -> str:
        there = table.nodes[row].info.devices
        has = condition.choose(there) or sorted({device_kind(d) for d in there})
        return f"asks for {condition}; it has {', '.join(has) or 'none'} (CDI files in /etc/cdi)"
