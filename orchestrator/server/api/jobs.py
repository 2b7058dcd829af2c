"""Routes of runs and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.status import TaskStatus
from agent.contract.times import timestamp_if_set
from orchestrator.errors import RefusedError
from orchestrator.planning.schedules import ScheduleState, next_time
from orchestrator.server.api.guard import sees
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.events import Emit, Failure, TaskEvent, WorkEvent
from orchestrator.server.jobs.records import JobRun, RunTask
from orchestrator.server.plane import ControlPlane
from orchestrator.stackfile.workloads import Schedule


class RunTaskRow(TypedDict):
    """One task of a run; *output* is the end of what it said."""

    name: str
    node: str
    exit_code: int | None
    restarts: int
    reason: str
    output: tuple[str, ...]


class RunRow(TypedDict):
    """One row of `pystack job history` and `cron history`."""

    run: str
    stack: str
    service: str
    trigger: str
    state: str
    scheduled: str
    begun: str
    ended: str
    reason: str
    tasks: list[RunTaskRow]


class ScheduleRow(TypedDict):
    """One row of `pystack cron ls`. *next* and *last* are times, *outcome* is that of the last
    run."""

    stack: str
    service: str
    cron: str
    timezone: str
    next: str
    last: str
    outcome: str
    running: int
    paused: bool


def _task_row(task: RunTask) -> RunTaskRow:
    return RunTaskRow(
        name=task.name,
        node=task.node,
        exit_code=task.exit_code,
        restarts=task.restarts,
        reason=task.reason,
        output=task.output,
    )


def _run_row(run: JobRun) -> RunRow:
    return RunRow(
        run=run.id,
        stack=run.stack,
        service=run.service,
        trigger=run.trigger,
        state=run.state,
        scheduled=timestamp_if_set(run.scheduled, "milliseconds"),
        begun=timestamp_if_set(run.begun, "milliseconds"),
        ended=timestamp_if_set(run.ended, "milliseconds"),
        reason=run.reason,
        tasks=[_task_row(task) for task in run.tasks],
    )


async def list_runs(request: web.Request) -> web.Response:
    """The runs of a stack's jobs, schedules and hooks that are remembered, the oldest first; with `service=` of one alone."""
    plane, stack = request.app[PLANE], request.match_info["stack"]
    service = request.query.get("service", "")
    if service and (stack, service) not in plane.backups.owners():
        plane.state.get_service(stack, service)
    return json_response([_run_row(r) for r in plane.jobs.book.of_stack(stack) if service in ("", r.service)])


async def list_schedules(request: web.Request) -> web.Response:
    """All services with a schedule; with `stack=` those of one stack."""
    plane, only = request.app[PLANE], request.query.get("stack", "")
    rows = [
        _schedule_row(plane, stack, name, schedule)
        for (stack, name), schedule in sorted(plane.jobs.schedules(), key=lambda pair: pair[0][0])
        if only in ("", stack) and sees(request, stack)
    ]
    return json_response(rows)


def _schedule_row(plane: ControlPlane, stack: str, name: str, schedule: Schedule) -> ScheduleRow:
    book = plane.jobs.book
    state = book.schedules.get((stack, name))
    ended = [r for r in book.of(stack, name) if not r.open]
    at = next_time(schedule, state.last) if state and not state.paused else None
    return ScheduleRow(
        stack=stack,
        service=name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        next=timestamp_if_set(at or 0.0, "milliseconds"),
        last=timestamp_if_set(ended[-1].scheduled or ended[-1].begun, "milliseconds") if ended else "",
        outcome=ended[-1].state if ended else "",
        running=sum(r.open for r in book.of(stack, name)),
        paused=bool(state and state.paused),
    )


def _scheduled(plane: ControlPlane, request: web.Request) -> tuple[str, str, Schedule]:
    """The stack and the service, or other work, that the request names. Raises RefusedError (404, 409)."""
    stack, name = request.match_info["stack"], request.match_info["service"]
    return stack, name, plane.jobs.schedule_of(stack, name)


async def run_now(request: web.Request) -> web.StreamResponse:
    """Run a service with a schedule now, beside its times; a stream of events that ends with the run."""
    plane = request.app[PLANE]
    stack, name, schedule = _scheduled(plane, request)
    run = plane.jobs.order(stack, name, "hand")
    await plane.jobs.book.put(run, keep=schedule.history, new=True)
    where = next((s.where for s in plane.state.get_stack(stack).stack.services if s.name == name), name)
    return await stream(request, lambda emit: watched(plane, run, where, emit))


async def watched(plane: ControlPlane, run: JobRun, where: str, emit: Emit) -> Sequence[Failure]:
    """Tell of the tasks of *run* until it has ended."""

    def listen(status: TaskStatus) -> None:
        task = plane.state.tasks.get(status.task)
        if task and task.run == run.id and task.service == run.service and task.stack == run.stack:
            emit(TaskEvent.of(status))

    def over() -> JobRun | None:
        now = plane.jobs.book.runs.get((run.stack, run.service), {}).get(run.id)
        if now is None:
            raise RefusedError(f"run {run.id} of {run.stack}/{run.service} is not there any more", 404)
        return None if now.open else now

    plane.statuses.listeners.add(listen)
    try:
        ended = await plane.statuses.until(over)
    finally:
        plane.statuses.listeners.discard(listen)
    if ended.state == "succeeded":
        for task in ended.tasks:
            if "@" in run.service and task.output:  # what services say is in their logs
                emit(WorkEvent(work=f"{run.service} of {run.stack}", node=task.node, message=task.output[-1]))
        return ()
    bad = [t for t in ended.tasks if t.reason] or [RunTask(name=f"{run.stack}-{run.service}-{run.id}")]
    return [
        Failure(task=t.name, where=where, reason=t.reason or ended.reason, exit_code=t.exit_code, log=t.output[-10:])
        for t in bad
    ]


async def pause_or_resume(request: web.Request) -> web.Response:
    """Let the times of a schedule pass without runs, or end that; what runs goes on."""
    plane = request.app[PLANE]
    stack, name, schedule = _scheduled(plane, request)
    paused = request.match_info["verb"] == "pause"
    book = plane.jobs.book
    state = book.schedules.get((stack, name)) or ScheduleState(last=plane.jobs.now())
    if state.paused != paused:
        # what passed meanwhile is not made up for
        last = state.last if paused else max(state.last, plane.jobs.now())
        await book.put_schedule(stack, name, msgspec.structs.replace(state, paused=paused, last=last), (), 1)
    return json_response(_schedule_row(plane, stack, name, schedule))
