"""Tasks that had to make room for others."""

from __future__ import annotations

from agent.contract.wire import WireStruct


class Eviction(WireStruct, frozen=True, kw_only=True):
    """*task* of *service* leaves *node*, so that *by*, a task of a higher priority, has room there."""

    task: str
    stack: str
    service: str
    node: str
    priority: int
    by: str
    by_priority: int

    @property
    def reason(self) -> str:
        """For people."""
        return f"makes room for {self.by} (priority {self.by_priority}, its own is {self.priority})"
