"""How far a job is, and which of its tasks may begin. Pure: tasks and statuses go in.

Source: SwarmKit, design/jobs: a job has so many tasks to complete, of which so many run at a time; one that ends with exit code
0 stays as it is, one that fails is started again as its restart policy says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from agent.contract.container import digest
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.stackfile.model import Service

RunState = Literal["pending", "running", "succeeded", "failed", "missed", "skipped", "superseded"]


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """*begun*: a task of the job was let go. *release* are the tasks whose turn it is. *succeeded* is None while a task has
    still to end; *reasons* says of each task that failed for good why."""

    begun: bool
    release: tuple[Task, ...] = ()
    succeeded: bool | None = None
    reasons: tuple[tuple[str, str], ...] = ()


def is_current(task: Task, status: TaskStatus | None) -> bool:
    """Whether *status* is of this very task, and not of its predecessor of the same name."""
    return status is not None and status.digest == digest(task.container) and status.generation >= task.generation


def end_of(task: Task, status: TaskStatus | None) -> str | None:
    """How *task* ended: "" well, the reason why it failed for good, None while it has not ended."""
    if status is None:
        return None
    if status.error and (status.state == "failed" or not status.container):
        return status.error
    if not is_current(task, status) or status.state not in ("exited", "failed"):
        return None
    if status.exit_code == 0 and status.state == "exited":
        return ""
    return "out of memory" if status.oom_killed else status.error or f"exited with {status.exit_code}"


def progress(service: Service, tasks: Sequence[Task], statuses: Mapping[str, TaskStatus]) -> JobProgress:
    """How far the job *service* is, all of whose *tasks* are given. A job whose depends_on does not let it begin has no task
    that is to run."""
    let_go = [t for t in tasks if t.desired != "waiting"]
    ends = {t.name: end_of(t, statuses.get(t.name)) for t in let_go}
    reasons = tuple((name, why) for name, why in ends.items() if why)
    waiting = sorted((t for t in tasks if t.desired == "waiting"), key=lambda t: t.index)
    begun = any(t.desired == "running" for t in let_go)
    free = service.max_concurrent - sum(why is None for why in ends.values())
    release = waiting[: max(free, 0)] if begun and service.max_concurrent else []
    over = not waiting and all(why is not None for why in ends.values())
    return JobProgress(
        begun=begun,
        release=tuple(msgspec.structs.replace(t, desired="running") for t in release),
        succeeded=not reasons if over and tasks else None,
        reasons=reasons,
    )


def held_back(service: Service, tasks: Sequence[Task], statuses: Mapping[str, TaskStatus]) -> frozenset[str]:
    """The names of those of *tasks* that must wait until others of their job have ended."""
    if not service.is_job or not service.max_concurrent:
        return frozenset()
    left = sorted((t for t in tasks if end_of(t, statuses.get(t.name)) is None), key=lambda t: t.index)
    return frozenset(t.name for t in left[service.max_concurrent :])


def iteration(tasks: Sequence[Task]) -> str:
    """What tells one run of a job from the next: another definition, another order to start. 12 hex digits."""
    parts = sorted((t.name, digest(t.container), t.generation) for t in tasks)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]
