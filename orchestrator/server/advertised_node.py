"""This host's own node, as the other servers of the cluster must know it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.placement.node import Node
from orchestrator.server.node_add import own_host_key


async def advertised_node(known: Node, advertise: str, root: Path) -> Node:
    """*known* with *advertise* as its SSH target, its host key, and *root* as its agent's folder. Its underlay address is the
    one of *advertise* if it has none yet."""
    from orchestrator.transport.ssh import SshTarget

    address = SshTarget.parse(advertise).host
    return msgspec.structs.replace(
        known,
        target=advertise,
        root=str(root),
        underlay=known.underlay or address,
        host_key=await own_host_key(address),
    )
