"""`x-job` and `x-schedule` of a service, read."""

from __future__ import annotations

import datetime
from typing import Any

from orchestrator.stackfile.field_readers import Fields, ServiceContext, command_line, duration, integer, read_hook, scalar
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.workloads import JOBS, DeployHook, Hooks, Job, Schedule

NEVER_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def x_job(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-job. `total_completions` is `deploy.replicas` by another name."""
    body = draft.reading.mapping(value, path)
    fields: Fields = {}
    for key, row in (
        ("max_concurrent", integer("max_concurrent", 0)),
        ("keep", integer("keep", 1, 1000)),
        ("deadline", duration("deadline_s")),
    ):
        if key in body:
            fields |= row(draft, body[key], (*path, key))
    deploy = draft.body.get("deploy")
    deploy = deploy if isinstance(deploy, dict) else {}
    mode = scalar(deploy.get("mode"))
    if mode not in JOBS and "x-schedule" not in draft.body:
        draft.reading.check(path, "is for work that ends", "add deploy: {mode: replicated-job}, or x-schedule")
    out: Fields = {"job": Job(**fields)}
    if "total_completions" in body:
        at = (*path, "total_completions")
        out |= integer("replicas", 1)(draft, body["total_completions"], at)
        if mode == "global-job":
            draft.reading.check(at, "a global-job has one task on each node", "leave it out, or write mode: replicated-job")
        elif "replicas" in deploy and scalar(deploy["replicas"]) != scalar(body["total_completions"]):
            draft.reading.check(at, f"differs from deploy.replicas ({scalar(deploy['replicas'])})", "keep one of them")
    return out


def x_schedule(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-schedule. Its `cron` must be a line that fires, its `timezone` one that the machine knows."""
    from orchestrator.stackfile.cron import CronError, first_after, parse_zone  # for the few files that have one

    body = draft.reading.mapping({"cron": value} if isinstance(value, str) else value, path)
    fields: Fields = {"cron": " ".join(scalar(body.get("cron")).split()), "timezone": scalar(body.get("timezone", "UTC"))}
    at = path if isinstance(value, str) else (*path, "cron")
    try:
        zone = parse_zone(fields["timezone"])
    except CronError as error:
        draft.problem((*path, "timezone"), str(error), error.fix)
        zone = datetime.UTC
    try:
        if first_after(fields["cron"], zone, NEVER_BEFORE) is None:
            draft.problem(at, f"{fields['cron']!r} never fires", "`30 2 * * *` is each day at half past two")
    except CronError as error:
        draft.problem(at, str(error), error.fix)
    for key, row in (("deadline", duration("deadline_s")), ("history", integer("history", 1, 1000))):
        if key in body:
            fields |= row(draft, body[key], (*path, key))
    fields |= {key: scalar(body[key]) for key in ("concurrency", "missed") if key in body}
    mode = scalar((draft.body.get("deploy") or {}).get("mode", "replicated-job"))
    if mode not in JOBS:
        draft.reading.check(path, f"deploy.mode {mode} runs all the time", "leave deploy.mode out, or write replicated-job")
    return {"schedule": Schedule(**fields)}


def x_hooks(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-hooks: a command alone, or a mapping that has one."""
    body = draft.reading.mapping(value, path)
    made: dict[str, DeployHook] = {}
    for name in ("pre_deploy", "post_deploy"):
        if name not in body:
            continue
        at = (*path, name)
        hook = body[name] if isinstance(body[name], dict) else {"command": body[name]}
        words = command_line("command")(draft, hook.get("command"), at).get("command")
        if not words:
            draft.problem(at, "needs a command", "pre_deploy: ./migrate")
            continue
        limit = duration("deadline_s")(draft, hook["deadline"], (*at, "deadline")) if "deadline" in hook else {}
        made[name] = DeployHook(hook=read_hook(draft, hook, words), image=scalar(hook.get("image")), **limit)
    return {"hooks": Hooks(**made)}


def job_restart(draft: ServiceContext, fields: Fields) -> Fields:
    """What restarts a task of a service that ends, {} for another service: failure alone, and for one with a schedule nothing
    unless the file says so, as its next run comes anyhow. Source: docker service create, --restart-condition of jobs."""
    if fields.get("mode") not in JOBS and "schedule" not in fields:
        return {}
    deploy = draft.body.get("deploy")
    said = "restart" in draft.body or (isinstance(deploy, dict) and "restart_policy" in deploy)
    if not said:
        return {"restart": "no" if "schedule" in fields else "on-failure"}
    return {"restart": "no" if fields.get("restart", "no") == "no" else "on-failure"}
