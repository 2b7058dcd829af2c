"""How far a node's clock is from the server's."""

from __future__ import annotations

from orchestrator.errors import RefusedError
from orchestrator.server.members import NodeConnection

MAX_SKEW_S = 5.0
"""How far the clock of a node may be from the server's."""


def clock_skew_s(own: NodeConnection, member: NodeConnection) -> float:
    """How many seconds the clock of *member* is ahead of that of *own*, by what both reported when they were connected."""
    return member.node.info.clock - own.node.info.clock - (member.connected_at - own.connected_at)


def check_clock(target: str, skew_s: float) -> None:
    """Raises RefusedError (409) if the clock of the node at *target* is more than MAX_SKEW_S ahead or behind."""
    if abs(skew_s) > MAX_SKEW_S:
        raise RefusedError(
            f"the clock of {target} is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}: set it (chrony, "
            "systemd-timesyncd) and add the node again",
            409,
        )
