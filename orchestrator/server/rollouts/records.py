"""What the store keeps of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.contract.wire import WireStruct
from orchestrator.server.events import Failure
from orchestrator.server.records import RolloutVerb, UpOptions
from orchestrator.stackfile.model import Stack

RolloutState = Literal["running", "paused", "succeeded", "failed", "superseded", "aborted"]
UNFINISHED: tuple[RolloutState, ...] = ("running", "paused")


class RolloutRecord(WireStruct, frozen=True, kw_only=True):
    """The last rollout of a stack: what began it (*verb*), what is wanted, how, and how far it is. *before* is the revision
    that it began from, 0 if there was none. *begun* and *ended* are seconds since the epoch. *phase* says what it does or waits
    for, *reason* why it ended."""

    id: str
    stack: Stack
    options: UpOptions
    verb: RolloutVerb = "up"
    state: RolloutState = "running"
    before: int = 0
    begun: float = 0.0
    ended: float = 0.0
    phase: str = ""
    reason: str = ""
    failures: tuple[Failure, ...] = ()

    def concerns(self, service: str) -> bool:
        """Whether *service* is one that it is for."""
        return not self.options.services or service in self.options.services


def present_scale(stack: Stack, there: Mapping[str, int], last: RolloutRecord | None) -> dict[str, int]:
    """How many replicas each service of *stack* is to keep, where so many are *there*. Where its *last* rollout broke off, some
    may be lacking and spares may be left: then that one's wish counts. It broke off, too, where another `up` took its place
    that was then refused."""
    scale = {s.name: 0 for s in stack.services if s.scale and not s.scale.least}  # none may be what they ask for
    scale |= there
    if last and last.state != "succeeded":
        if last.verb == "up" and not last.options.services:
            scale |= {s.name: s.replicas for s in stack.services if not s.scale}
        if last.state != "aborted":  # what was asked for then is not wanted
            scale |= last.options.scale
    fixed = {s.name for s in stack.services if s.mode.startswith("replicated")}
    return {name: count for name, count in scale.items() if name in fixed}


def of_rollout(stack: str) -> str:
    """The key in the store: `rollouts/<stack>`."""
    return f"rollouts/{stack}"
