"""What the store keeps of a rollout."""

from __future__ import annotations

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


def of_rollout(stack: str) -> str:
    """The key in the store: `rollouts/<stack>`."""
    return f"rollouts/{stack}"
