"""What is in trouble now, of what a server has in memory. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from agent.contract.notify import Kind
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.server.jobs.records import JobRun
from orchestrator.server.rollouts.records import RolloutRecord

NAMED = 5
"""Tasks that a text names at most."""
DAY_S = 86_400.0
HEALED: dict[Kind, Kind] = {"stack_degraded": "stack_healed", "node_down": "node_up"}
"""The notice when a condition of this kind ends; the others have none."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must not be. One that *waits* is reported if it lasts; one that does not is an event."""

    kind: Kind
    subject: str
    text: str
    waits: bool = False

    @property
    def key(self) -> str:
        """The same for the same trouble."""
        return f"{self.kind}/{self.subject}"


def trouble_of(task: Task, status: TaskStatus | None, lost: str) -> str:
    """Why *task* is not as it should be, "" if it is, or is on its way."""
    if task.desired != "running":
        return ""
    if lost:
        return lost
    if status is None:
        return ""
    if status.state == "failed" or status.error:
        return status.reason or "it failed"
    if status.state == "restarting" or (status.state == "exited" and status.exit_code):
        return status.reason or f"it ended with status {status.exit_code}"
    return "its healthcheck fails" if status.health == "unhealthy" else ""


def degraded(tasks: Iterable[Task], why: Mapping[str, str], updating: Iterable[str]) -> list[Condition]:
    """Stacks with tasks in trouble; *why* has the reasons by task. Those that are *updating* are left to their rollouts."""
    by_stack: dict[str, list[str]] = {}
    for task in tasks:
        if reason := why.get(task.name):
            by_stack.setdefault(task.stack, []).append(f"{task.name}: {reason}")
    rolling = set(updating)
    found = []
    for stack, bad in sorted(by_stack.items()):
        more = f"\nand {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        text = f"{len(bad)} tasks of stack {stack} are in trouble:\n" + "\n".join(bad[:NAMED]) + more
        if stack not in rolling:
            found.append(Condition(kind="stack_degraded", subject=stack, text=text, waits=True))
    return found


def failed_rollouts(records: Iterable[RolloutRecord], since: float) -> list[Condition]:
    """Rollouts that failed after *since*; each has an ID of its own."""
    return [
        Condition(
            kind="rollout_failed",
            subject=f"{r.stack.name}/{r.id}",
            text=f"the rollout of stack {r.stack.name} failed: "
            + (r.reason or "; ".join(f"{f.task}: {f.reason}" for f in r.failures[:NAMED])),
        )
        for r in records
        if r.state == "failed" and r.ended >= since
    ]


def failed_runs(runs: Iterable[JobRun], since: float) -> list[Condition]:
    """Runs of jobs, schedules and backups that failed after *since*, and backups whose time passed without one."""
    found = []
    for run in runs:
        volume, _, kind = run.service.partition("@")  # a backup's belongs to a volume: `data@backup`, `data@verify`
        failed = run.state == "failed" or (kind != "" and run.state == "missed")
        if not failed or max(run.ended, run.created, run.scheduled) < since:
            continue
        what = f"run {run.id} of {run.stack}/{run.service} failed"
        if kind:
            what = f"the {'backup' if kind == 'backup' else 'trial of the backup'} of volume {volume} of stack {run.stack} "
            what += "failed" if run.state == "failed" else "was missed"
        text = f"{what}: {run.reason}" if run.reason else what
        subject = f"{run.stack}/{run.service}/{run.id}"
        found.append(Condition(kind="backup_failed" if kind else "run_failed", subject=subject, text=text))
    return found


def ending_certificates(ends: Mapping[str, float], now: float, days: float) -> list[Condition]:
    """Certificates, by host, that end in less than *days*."""
    return [
        Condition(
            kind="certificate_ends",
            subject=host,
            text=f"the certificate of {host} ends in {max(0, math.floor((end - now) / DAY_S))} days: see `pystack ingress ls`",
        )
        for host, end in sorted(ends.items())
        if end - now < days * DAY_S
    ]
