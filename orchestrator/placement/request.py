"""Placement requests: the needs of one task, or of several that must share a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from agent.contract.container import DeviceRequest
from orchestrator.stackfile.model import Placement, Reserves

T = TypeVar("T")
PortKey = tuple[int, str]
"""A port and its protocol."""
_ANYWHERE = Placement()
_NOTHING = Reserves()


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What *tasks* tasks that share a node ask of it together.

    *service* is `<stack>/<service>`, counted for spreading; *ports* are those that the node itself must hold; *near* and *away*
    name services whose tasks must, or must not, be on the node. *pinned* names the only node that will do, "" for any;
    *pinned_by* says why, as in "volume db is". *parents* are the links that its networks are made on and *drivers* the network
    drivers that are not built in: (link or driver, network). *encrypted* are networks that need WireGuard,
    *limited* those with a limit of bandwidth; *sized* is what has a size on disk; *devices* must be there, and are shared.
    *staying* asks whether a task that is on the node already may stay there. Of two requests that do not both fit, the one with
    the higher *priority* does."""

    service: str
    placement: Placement = _ANYWHERE
    reserves: Reserves = _NOTHING
    tasks: int = 1
    ports: frozenset[PortKey] = frozenset()
    near: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    pinned: str = ""
    pinned_by: str = ""
    parents: tuple[tuple[str, str], ...] = ()
    drivers: tuple[tuple[str, str], ...] = ()
    encrypted: tuple[str, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    limited: tuple[str, ...] = ()
    sized: tuple[str, ...] = ()
    staying: bool = False
    priority: int = 0


def merge_requests(parts: Sequence[PlacementRequest]) -> PlacementRequest:
    """One request for tasks that must share a node: the reservations added up, every other condition once, of tolerations
    those that all have, and the lowest priority."""
    generic: dict[str, int] = {}
    for part in parts:
        for kind, number in part.reserves.generic:
            generic[kind] = generic.get(kind, 0) + number
    pinned = next((p for p in parts if p.pinned), parts[0])
    services = {p.service for p in parts}
    return PlacementRequest(
        service=parts[0].service,
        tasks=len(parts),
        placement=Placement(
            constraints=_union(p.placement.constraints for p in parts),
            extended=_union(p.placement.extended for p in parts),
            spread=_union(p.placement.spread for p in parts),
            tolerations=tuple(t for t in parts[0].placement.tolerations if all(t in p.placement.tolerations for p in parts)),
        ),
        reserves=Reserves(
            cpus=sum(p.reserves.cpus for p in parts),
            memory=sum(p.reserves.memory for p in parts),
            generic=tuple(sorted(generic.items())),
        ),
        ports=frozenset().union(*(p.ports for p in parts)),
        near=tuple(n for n in _union(p.near for p in parts) if n not in services),
        away=_union(p.away for p in parts),
        pinned=pinned.pinned,
        pinned_by=pinned.pinned_by,
        parents=_union(p.parents for p in parts),
        drivers=_union(p.drivers for p in parts),
        encrypted=_union(p.encrypted for p in parts),
        devices=_union(p.devices for p in parts),
        limited=_union(p.limited for p in parts),
        sized=_union(p.sized for p in parts),
        priority=min(p.priority for p in parts),
    )


def _union(values: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    """Each value once, in the order of its first appearance."""
    return tuple(dict.fromkeys(v for value in values for v in value))
