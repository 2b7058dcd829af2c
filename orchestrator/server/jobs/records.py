"""What the store keeps of the runs of a service."""

from __future__ import annotations

from typing import Literal

from agent.contract.wire import WireStruct
from orchestrator.planning.jobs import RunState

Trigger = Literal["up", "schedule", "hand", "pre_deploy", "post_deploy", "analysis"]
HOOKS: tuple[Trigger, ...] = ("pre_deploy", "post_deploy", "analysis")
OPEN: tuple[RunState, ...] = ("pending", "running")
"""The states of a run that has not ended."""


class RunTask(WireStruct, frozen=True, kw_only=True):
    """One task of a run, as it ended: *output* is the end of what it said."""

    name: str
    node: str = ""
    exit_code: int | None = None
    restarts: int = 0
    reason: str = ""
    output: tuple[str, ...] = ()


class JobRun(WireStruct, frozen=True, kw_only=True):
    """One run of a service. *id* is a number of ten digits that grows with time, and an h where no schedule asked for it.
    *scheduled* (of a schedule's run), *created*, *begun* and *ended* are seconds since the epoch, 0 as long as they are not.
    *iteration* tells runs of `up` and of hooks apart. *deadline_s* is that of a hook. *part* is the one volume that a
    backup is of, where replicas have one each; "" stands for all."""

    id: str
    stack: str
    service: str
    trigger: Trigger
    state: RunState = "pending"
    scheduled: float = 0.0
    created: float = 0.0
    begun: float = 0.0
    ended: float = 0.0
    reason: str = ""
    iteration: str = ""
    deadline_s: float = 0.0
    part: str = ""
    tasks: tuple[RunTask, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN


def of_run(run: JobRun) -> str:
    """The key in the store: `runs/<stack>/<service>/<id>`."""
    return f"runs/{run.stack}/{run.service}/{run.id}"


def of_schedule(stack: str, service: str) -> str:
    """The key in the store of a schedule's state: `schedules/<stack>/<service>`."""
    return f"schedules/{stack}/{service}"
