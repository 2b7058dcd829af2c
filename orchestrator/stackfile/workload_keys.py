"""`x-job` and `x-schedule` of a service, read."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from orchestrator.stackfile.field_readers import (
    Fields,
    ServiceContext,
    command_line,
    decimal,
    duration,
    flag,
    integer,
    read_hook,
    scalar,
)
from orchestrator.stackfile.load_context import LoadContext, kind
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.workloads import (
    JOBS,
    AbortOn,
    CanaryStep,
    DeployHook,
    Hooks,
    Job,
    Scale,
    ScaleDirection,
    ScaleQuery,
    Schedule,
    StagedUpdate,
)

HIGHEST_PRIORITY = 1_000_000
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
    body = draft.reading.mapping({"cron": value} if isinstance(value, str) else value, path)
    fields: Fields = {"cron": " ".join(scalar(body.get("cron")).split()), "timezone": scalar(body.get("timezone", "UTC"))}
    at = path if isinstance(value, str) else (*path, "cron")
    check_times(draft.reading, fields["cron"], fields["timezone"], at, (*path, "timezone"))
    for key, row in (("deadline", duration("deadline_s")), ("history", integer("history", 1, 1000))):
        if key in body:
            fields |= row(draft, body[key], (*path, key))
    fields |= {key: scalar(body[key]) for key in ("concurrency", "missed") if key in body}
    mode = scalar((draft.body.get("deploy") or {}).get("mode", "replicated-job"))
    if mode not in JOBS:
        draft.reading.check(path, f"deploy.mode {mode} runs all the time", "leave deploy.mode out, or write replicated-job")
    return {"schedule": Schedule(**fields)}


def check_times(reading: LoadContext, line: str, timezone: str, at: Path_, zone_at: Path_) -> None:
    """The cron *line*, which stands at *at*, fires, and there is a zone *timezone*; otherwise they are problems."""
    from orchestrator.stackfile.cron import CronError, first_after, parse_zone  # for the few files that have one

    try:
        zone = parse_zone(timezone)
    except CronError as error:
        reading.problem(zone_at, str(error), error.fix)
        zone = datetime.UTC
    try:
        if first_after(line, zone, NEVER_BEFORE) is None:
            reading.problem(at, f"{line!r} never fires", "`30 2 * * *` is each day at half past two")
    except CronError as error:
        reading.problem(at, str(error), error.fix)


def x_hooks(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-hooks: a command alone, or a mapping that has one."""
    body = draft.reading.mapping(value, path)
    made: dict[str, DeployHook] = {}
    for name in ("pre_deploy", "post_deploy"):
        if name not in body:
            continue
        if hook := _deploy_hook(draft, body[name], (*path, name)):
            made[name] = hook
    return {"hooks": Hooks(**made)}


def _deploy_hook(draft: ServiceContext, value: Any, path: Path_) -> DeployHook | None:
    hook = value if isinstance(value, dict) else {"command": value}
    words = command_line("command")(draft, hook.get("command"), path).get("command")
    if not words:
        draft.problem(path, "needs a command", f"{path[-1]}: ./program")
        return None
    limit = duration("deadline_s")(draft, hook["deadline"], (*path, "deadline")) if "deadline" in hook else {}
    return DeployHook(hook=read_hook(draft, hook, words), image=scalar(hook.get("image")), **limit)


def x_update(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-update. Weights grow from step to step."""
    body = draft.reading.mapping(value, path)
    strategy = scalar(body.get("strategy"))
    steps: list[CanaryStep] = []
    for number, item in enumerate(draft.reading.sequence(body.get("steps"), (*path, "steps"))):
        at = (*path, "steps", number)
        step = draft.reading.mapping(item, at)
        weight = percent(draft, step.get("weight"), (*at, "weight"))
        if weight is None:
            continue
        if steps and weight <= steps[-1].weight:
            draft.problem((*at, "weight"), f"is {weight:g}%, and the step before has {steps[-1].weight:g}%", "weights grow")
        hold = duration("hold_s")(draft, step["hold"], (*at, "hold")) if "hold" in step else {}
        steps.append(CanaryStep(weight=weight, **hold))
    if strategy == "canary" and not steps:
        draft.problem(path, "a canary needs steps", "steps: [{weight: 5%, hold: 2m}, {weight: 50%, hold: 5m}]")
    if strategy == "blue-green" and steps:
        draft.problem((*path, "steps"), "are those of a canary", "blue-green has one hold, and no steps")
    deploy = draft.body.get("deploy")
    mode = scalar(deploy.get("mode", "replicated")) if isinstance(deploy, dict) else "replicated"
    if mode != "replicated" or "x-schedule" in draft.body:
        draft.reading.check(path, "needs replicas, of which there can be more for a while", "mode: replicated")
    hold = duration("hold_s")(draft, body["hold"], (*path, "hold")) if "hold" in body else {}
    analysis = _deploy_hook(draft, body["analysis"], (*path, "analysis")) if "analysis" in body else None
    limits = _abort_on(draft, body.get("abort_on"), (*path, "abort_on"))
    update = StagedUpdate(strategy=strategy, steps=tuple(steps), analysis=analysis, abort_on=limits, **hold)  # type: ignore[arg-type]
    return {"staged": update}


def _abort_on(draft: ServiceContext, value: Any, path: Path_) -> AbortOn:
    body = draft.reading.mapping(value, path)
    fields: Fields = {}
    if "error_rate" in body and (part := percent(draft, body["error_rate"], (*path, "error_rate"))):
        fields["error_rate"] = part
    if "p99" in body:
        fields |= duration("p99_s")(draft, body["p99"], (*path, "p99"))
    return AbortOn(**fields)


def x_scale(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-scale. A memory target needs a limit or a reservation that it is a part of."""
    body = draft.reading.mapping(value, path)
    fields: Fields = {"least": 1, "most": 1}
    for key, field in (("min", "least"), ("max", "most")):
        if key in body:
            fields |= integer(field, 0 if key == "min" else 1)(draft, body[key], (*path, key))
    if fields["least"] > fields["most"]:
        draft.problem((*path, "min"), f"min is {fields['least']}, and max {fields['most']}", "min is at most max")
        return {}
    fields |= _targets(draft, body.get("target"), (*path, "target"))
    if not fields["least"] and not {"query", "rps"} & fields.keys():
        fix = "min: 1, or a target with rps or a query"
        draft.problem((*path, "min"), "of no replica nobody can tell how busy it is", fix)
    for name in ("up", "down"):
        fields[name] = _rate(draft, body.get(name), (*path, name), getattr(Scale(least=1, most=1), name))
    deploy = draft.body.get("deploy")
    deploy = deploy if isinstance(deploy, dict) else {}
    resources = deploy.get("resources") or {}
    has = any((resources.get(part) or {}).get("memory") for part in ("limits", "reservations"))
    if "memory" in fields and not has and not {"mem_limit", "mem_reservation"} & draft.body.keys():
        draft.reading.check((*path, "target", "memory"), "is a part of nothing", "give it mem_limit, or a reservation")
    if scalar(deploy.get("mode", "replicated")) != "replicated" or "x-schedule" in draft.body:
        draft.reading.check(path, "needs replicas, of which there can be more", "mode: replicated")
    if "container_name" in draft.body and fields["most"] > 1:
        draft.reading.check((*path, "max"), "several replicas cannot share the name of container_name", "remove one of them")
    return {"scale": Scale(**fields)}


def _targets(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    body, fields = draft.reading.mapping(value, path), Fields()
    for name in ("cpu", "memory"):
        if name in body and (part := percent(draft, body[name], (*path, name))):
            fields[name] = part
    if "rps" in body:
        fields |= decimal("rps", "number of requests a second")(draft, body["rps"], (*path, "rps"))
    if "query" in body and (query := _query(draft, body["query"], (*path, "query"))):
        fields["query"] = query
    if not any(fields.values()):
        draft.problem(path, "has no target that can be measured", "target: {cpu: 70%}")
    return fields


def _query(draft: ServiceContext, value: Any, path: Path_) -> ScaleQuery | None:
    body = value if isinstance(value, dict) else {"promql": value}
    fields = decimal("value", "number")(draft, body["value"], (*path, "value")) if "value" in body else {}
    promql = scalar(body.get("promql")).strip()
    if not promql or fields.get("value") == 0:
        draft.problem(path, "needs a query, and a value above 0 for each replica", "{promql: sum(queue_length), value: 100}")
        return None
    return ScaleQuery(promql=promql, where=str(draft.reading.mark(path)), **fields)


def x_stable(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-stable: true, or a mapping."""
    if not isinstance(value, dict):
        return {"stable": "ordered" if flag(value) else ""}
    deploy = draft.body.get("deploy")
    if isinstance(deploy, dict) and scalar(deploy.get("mode", "replicated")) != "replicated":
        draft.reading.check(path, "is for replicas", "mode: replicated")
    return {"stable": scalar(value.get("start", "ordered"))}


def x_priority(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-priority: a whole number, as in a PriorityClass of Kubernetes."""
    try:
        number = int(scalar(value))
        if isinstance(value, bool) or abs(number) > HIGHEST_PRIORITY:
            raise ValueError
    except ValueError:
        limits = f"from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}"
        draft.problem(path, f"must be a whole number {limits}, not {scalar(value) or kind(value)}")
        return {}
    deploy = draft.body.get("deploy")
    mode = scalar(deploy.get("mode", "replicated")) if isinstance(deploy, dict) else "replicated"
    if mode.startswith("global"):
        draft.reading.check(path, f"tasks of mode {mode} are on each node, however little that has free", "leave it out")
    return {"priority": number}


def _rate(draft: ServiceContext, value: Any, path: Path_, usual: ScaleDirection) -> ScaleDirection:
    body = draft.reading.mapping(value, path)
    fields: Fields = {}
    for key, row in (
        ("stabilise", duration("stabilise_s")),
        ("period", duration("period_s")),
        ("tasks", integer("tasks", 0)),
    ):
        if key in body:
            fields |= row(draft, body[key], (*path, key))
    if "percent" in body and (part := percent(draft, body["percent"], (*path, "percent"))):
        fields["percent"] = part
    return msgspec.structs.replace(usual, **fields)


def percent(draft: ServiceContext, value: Any, path: Path_) -> float | None:
    """A part of a hundred, above 0 and up to 100, with or without its sign; None, and a problem, where it is none."""
    try:
        number = float(scalar(value).strip().removesuffix("%"))
        if not 0 < number <= 100:
            raise ValueError
    except ValueError:
        draft.problem(path, f"must be a part of a hundred such as 5%, not {scalar(value)}")
        return None
    return number


def job_restart(draft: ServiceContext, fields: Fields) -> Fields:
    """What restarts a task of a service that ends, {} for another service: failure alone, and for one with a schedule nothing
    unless the file says so, as its next run comes anyhow. Source: docker service create, --restart-condition of jobs."""
    if fields.get("mode") not in JOBS and "schedule" not in fields:
        return {}
    deploy = draft.body.get("deploy")
    given = "restart" in draft.body or (isinstance(deploy, dict) and "restart_policy" in deploy)
    if not given:
        return {"restart": "no" if "schedule" in fields else "on-failure"}
    return {"restart": "no" if fields.get("restart", "no") == "no" else "on-failure"}
