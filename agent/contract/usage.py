"""What containers use, as a node tells it of all at once."""

from __future__ import annotations

from agent.contract.wire import WireStruct


class Counters(WireStruct, frozen=True, kw_only=True):
    """Of one container: CPU time in nanoseconds; memory in bytes, and its limit, 0 for none; bytes that came and went by
    network and disk since it began. *at* is when they were read, in seconds of the node's monotonic clock."""

    at: float
    cpu: int = 0
    memory: int = 0
    limit: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
