"""Measures the MTU of the paths between nodes, by pings that must not be fragmented."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.errors import PystackError
from orchestrator.server.members import NodeConnection

MIN_MTU = 1280
"""Bytes. IPv6 has no smaller MTU (RFC 8200, section 5)."""
PROBED_PEERS = 4
"""To how many other nodes the paths of a node are measured."""


async def probe_path_mtu(member: NodeConnection, members: Iterable[NodeConnection]) -> tuple[int, int] | None:
    """The bytes that the paths from *member* to some others of *members* carry, and those that their links do.

    None if there is nothing to measure. A peer that answers no ping at all is taken to carry what the links do."""
    others = [m for m in members if m.ready and m.node.underlay and m is not member][:PROBED_PEERS]
    if not member.node.underlay or not others:
        return None
    link = min(member.node.info.mtu, *(m.node.info.mtu for m in others))
    sizes = [*range(MIN_MTU, min(link, 1500), 4), *range(1500, link, 100), link]
    probes = [(other, size) for other in others for size in sizes]
    asked = [{"source": member.node.underlay, "target": o.node.underlay, "size": s} for o, s in probes]
    try:
        echoes = await member.client.call("POST", "/pystack/probe", json=asked)
    except PystackError:
        return None
    largest: dict[str, int] = {}
    for (other, size), echo in zip(probes, echoes, strict=True):
        if not echo["problem"]:
            largest[other.node.name] = max(largest.get(other.node.name, 0), size)
    return min(largest.values(), default=link), link
