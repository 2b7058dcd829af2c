"""The loop that carries runs out: it begins what is due, lets tasks go when it is their turn, ends what takes too long, and
writes down how each run ended. It asks the store and the statuses alone, so that a new leader goes on where the last one
was."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.planning.jobs import JobProgress, RunState, end_of, iteration, progress
from orchestrator.planning.schedules import AHEAD_S, Due, ScheduleState, decide, next_time
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.jobs.book import Owner, RunBook
from orchestrator.server.jobs.records import HOOKS, JobRun, RunTask, Trigger
from orchestrator.server.jobs.starter import RunStarter, kept, key_of
from orchestrator.server.silence import patience
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.units import show_duration
from orchestrator.stackfile.workloads import Job, Schedule

POLL_S = 1.0
"""How often the loop looks where nothing tells it to."""
GIVE_UP_S = 60.0
"""How long a run may wait for a node that can take it, where it has no deadline."""
OUTPUT_LINES, OUTPUT_BYTES = 200, 16_384
"""How much of a task's output is kept with its run."""
log = logging.getLogger(__name__)


class OtherWork(Protocol):
    """Work that runs at certain times, and not in tasks of its own."""

    def schedules(self) -> Sequence[tuple[Owner, Schedule]]:
        """Whose it is, and when."""

    def owners(self) -> Collection[Owner]:
        """Whose it may be, at certain times or by hand."""

    def carry_out(self, run: JobRun) -> None:
        """Begin *run*, which has not ended, unless it is going on; and write down how it ends."""


class JobController:
    """Carries out the runs of all stacks. Tasks of a node that is silent for *lost_after_s* go elsewhere; None: never. *clock*
    gives seconds since the epoch."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        images: Images,
        inputs: Inputs,
        book: RunBook,
        *,
        lost_after_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dispatcher, self._state, self._statuses = dispatcher, dispatcher.state, dispatcher.statuses
        self.book = book
        self.starter = RunStarter(dispatcher, images, inputs, self.book)
        self._clock = clock
        self._lost_after_s = lost_after_s
        self.other: OtherWork | None = None
        self._next: dict[Owner, tuple[Schedule, float, float | None]] = {}
        """The next time of each schedule, with what it was computed from."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    async def run(self) -> None:
        """Never returns."""
        self._statuses.listeners.add(self._on_status)
        try:
            while True:
                self.book.changed.clear()
                try:
                    await self.step()
                except PystackError as error:
                    log.warning("runs of jobs: %s", error)
                except Exception:
                    log.exception("runs of jobs")
                try:
                    async with asyncio.timeout(self._pause()):
                        await self.book.changed.wait()
                except TimeoutError:
                    pass
        finally:
            self._statuses.listeners.discard(self._on_status)

    def _on_status(self, status: TaskStatus) -> None:
        if status.state in ("exited", "failed"):
            self.book.changed.set()

    def _pause(self) -> float:
        """Seconds until something is due, POLL_S at most."""
        now = self._clock()
        times = [at for owner, schedule in self.schedules() if (at := self._due_at(owner, schedule)) is not None]
        return max(0.0, min([POLL_S, *(at - now for at in times)]))

    def _due_at(self, owner: Owner, schedule: Schedule) -> float | None:
        """The next time of a schedule; 0 where it has to be looked at anyhow."""
        state = self.book.schedules.get(owner)
        if state is None or state.last > self._clock() + AHEAD_S:
            return 0.0
        known = self._next.get(owner)
        if known is None or known[:2] != (schedule, state.last):
            known = self._next[owner] = (schedule, state.last, next_time(schedule, state.last))
        return known[2]

    async def step(self) -> None:
        """Do all that can be done now."""
        now = self._clock()
        for owner, schedule in self.schedules():
            if (at := self._due_at(owner, schedule)) is not None and at <= now:
                await self._schedule(*owner, schedule, now)
        pending: dict[str, list[JobRun]] = {}
        others = self.other.owners() if self.other else ()
        for run in self.book.open():
            if self.other and (run.stack, run.service) in others:
                self.other.carry_out(run)
            elif run.state == "pending" and run.trigger in ("schedule", "hand"):  # the others are begun by those who order them
                pending.setdefault(run.stack, []).append(run)
        for name, runs in pending.items():
            await self._begin(name, runs, now)
        for record in list(self._state.stacks.values()):
            for service in record.stack.services:
                if service.is_job:
                    await self._job(record.stack, service, now)
        for run in self.book.open():
            if run.state == "running" and run.trigger != "up" and (run.stack, run.service) not in others:
                await self._follow(run, now)
        await self._sweep()

    # --- schedules ---------------------------------------------------------------------------------------------

    def schedules(self) -> list[tuple[Owner, Schedule]]:
        """All schedules: of services, and of other work."""
        services = [
            ((record.stack.name, service.name), service.schedule)
            for record in self._state.stacks.values()
            for service in record.stack.services
            if service.schedule
        ]
        return [*services, *(self.other.schedules() if self.other else ())]

    def schedule_of(self, stack: str, name: str) -> Schedule:
        """The schedule of service *name*, or of other work. Raises RefusedError (404, 409)."""
        if found := dict(self.schedules()).get((stack, name)):
            return found
        self._state.get_service(stack, name)
        raise RefusedError(f"service {name} of stack {stack} has no x-schedule", 409)

    async def _schedule(self, stack: str, name: str, schedule: Schedule, now: float) -> None:
        """Record what is due of one schedule. One that is new begins with the present."""
        state = self.book.schedules.get((stack, name))
        if state is None:
            return await self.book.put_schedule(stack, name, ScheduleState(last=now), (), schedule.history)
        active = [r for r in self.book.of(stack, name) if r.open]
        found = decide(schedule, state, now, active=bool(active))
        if found.state == state:
            return
        runs = [_due(stack, name, one, now) for one in found.due]
        await self.book.put_schedule(stack, name, found.state, runs, schedule.history)
        for run in runs:
            if run.state == "missed":
                log.warning("%s/%s: %s: %s", stack, name, run.state, run.reason)
                self.announce(run)
        for run in active if found.stop else ():
            await self.end(run, "superseded", "the next run took its place")

    def order(self, stack: str, service: str, trigger: Trigger, key: str = "") -> JobRun:
        """A new run of *service* that is to begin now; `book.put` makes it so."""
        now = self._clock()
        ident = self.book.next_id(stack, service, now)
        return JobRun(id=ident, stack=stack, service=service, trigger=trigger, created=now, iteration=key)

    async def _begin(self, name: str, runs: Sequence[JobRun], now: float) -> None:
        record = self._state.stacks.get(name)
        if record is None:
            return
        known = {s.name: s for s in record.stack.services}
        there = [r for r in runs if r.service in known]
        failed = await self.starter.begin(record.stack, there, now)
        for run in there:
            if not (reason := failed.get(key_of(run))):
                continue
            schedule = known[run.service].schedule
            patience = (schedule.deadline_s if schedule else 0) or GIVE_UP_S
            over = now - (run.scheduled or run.created) > patience
            if over or run.reason != reason:
                changed = msgspec.structs.replace(run, reason=reason)
                if over:
                    await self.end(changed, "failed", reason)
                else:
                    await self.book.put(changed, keep=kept(known[run.service]))

    # --- runs --------------------------------------------------------------------------------------------------

    def _tasks(self, run: JobRun) -> list[Task]:
        tasks = (t for t in self._state.tasks.values() if (t.stack, t.service) == (run.stack, run.service))
        return sorted((t for t in tasks if t.run == ("" if run.trigger == "up" else run.id)), key=lambda t: t.index)

    def _service(self, run: JobRun) -> Service | None:
        record = self._state.stacks.get(run.stack)
        return next((s for s in record.stack.services if s.name == run.service), None) if record else None

    async def _job(self, stack: Stack, service: Service, now: float) -> None:
        """Let the tasks of a job go when it is their turn, and keep a run of it."""
        tasks = [t for t in self._state.of_stack(stack.name).tasks if t.service == service.name and t.planned]
        found = progress(service, tasks, self._statuses.by_task)
        if not found.begun:
            return
        key = iteration(tasks)
        runs = [r for r in self.book.of(stack.name, service.name) if r.trigger == "up"]
        for other in (r for r in runs if r.open and r.iteration != key):
            await self.end(other, "superseded", "another `up` took its place")
        run = next((r for r in runs if r.iteration == key), None)
        if run is None:
            run = msgspec.structs.replace(self.order(stack.name, service.name, "up", key), state="running", begun=now)
            await self.book.put(run, keep=kept(service), new=True)
        if run.open:
            await self._advance(run, service, tasks, found, now)

    async def _follow(self, run: JobRun, now: float) -> None:
        """The same for a run that has tasks of its own."""
        service, tasks = self._service(run), self._tasks(run)
        if tasks and run.trigger in HOOKS:  # the service may be of a revision that is still to come
            service = Service(name=run.service, container=tasks[0].container, where="", job=Job(deadline_s=run.deadline_s))
        if service is None:
            return await self.end(run, "failed", "its service is not there any more")
        if not tasks:
            return await self.end(run, "failed", "its containers were removed")
        await self._advance(run, service, tasks, progress(service, tasks, self._statuses.by_task), now)

    async def _advance(self, run: JobRun, service: Service, tasks: Sequence[Task], found: JobProgress, now: float) -> None:
        limit = service.job.deadline_s
        if found.succeeded is not None:
            reasons = "; ".join(f"{name}: {why}" for name, why in found.reasons)
            await self.end(run, "succeeded" if found.succeeded else "failed", reasons)
        elif limit and run.begun and now - run.begun > limit:
            await self.end(run, "failed", f"had not ended after {show_duration(limit)}, its deadline")
        elif not any(t.desired == "running" for t in tasks):
            await self.end(run, "failed", "was stopped by hand")
        elif lost := [t for t in tasks if self._is_lost(t)]:
            reason = f"{lost[0].name}: its node {lost[0].node} is lost, and without a restart policy it runs once at most"
            await self.end(run, "failed", reason)
        elif found.release:
            await self._release(found.release)

    def _is_lost(self, task: Task) -> bool:
        """Whether *task* may have begun, its node has been silent for long, and it must not begin a second time."""
        member = self._dispatcher.cluster.members.get(task.node)
        if member is None or member.last_word is None or self._lost_after_s is None:
            return False
        if task.container.restart != "no" or task.desired != "running":
            return False
        limit = patience(self._lost_after_s, member.machine_answers)
        return asyncio.get_running_loop().time() - member.last_word > limit

    async def _release(self, tasks: Sequence[Task]) -> None:
        """Let *tasks* go. An `up` that writes the same tasks meanwhile wins."""
        if not self._state.allocation(tasks[0].stack).locked():
            await self._dispatcher.write_tasks(tasks)

    async def end(self, run: JobRun, state: RunState, reason: str = "") -> None:
        """Write down how *run* ended; what still runs of it is stopped. The containers of its own go, their output is kept."""
        tasks = self._tasks(run)
        alive = [t for t in tasks if t.desired != "stopped" and end_of(t, self._statuses.by_task.get(t.name)) is None]
        ended_tasks = tuple([await self._ended_task(t) for t in tasks])
        ended = msgspec.structs.replace(run, state=state, reason=reason, ended=self._clock(), tasks=ended_tasks)
        await self.book.put(ended, keep=max(kept(self._service(run)), 1))
        if run.trigger == "up" and state == "failed" and alive:  # those that wait for the job read first why
            await self._dispatcher.write_tasks([msgspec.structs.replace(t, desired="stopped") for t in alive])
        if state == "failed":
            log.warning("run %s of %s/%s failed: %s", run.id, run.stack, run.service, reason)
            self.announce(ended)
        if run.trigger != "up" and tasks:
            await self._dispatcher.remove_tasks([t.name for t in tasks])

    async def _ended_task(self, task: Task) -> RunTask:
        """How *task* ended, with the end of its output."""
        status = self._statuses.by_task.get(task.name)
        output: list[str] = []
        if status and status.container and not self._dispatcher.unreachable_reason(task):
            output = await self._dispatcher.cluster.get(task.node).client.tail(status.container, OUTPUT_LINES)
        return RunTask(
            name=task.name,
            node=task.node,
            exit_code=status.exit_code if status else None,
            restarts=status.restarts if status else 0,
            reason=end_of(task, status) or "",
            output=_last(output, OUTPUT_BYTES),
        )

    def announce(self, run: JobRun) -> None:
        """Tell those who follow events that *run* failed."""
        status = TaskStatus(task=f"{run.stack}-{run.service}-{run.id}", state="failed", error=f"run {run.state}: {run.reason}")
        for listen in list(self._statuses.listeners - {self._on_status}):
            listen(status)

    async def _sweep(self) -> None:
        """Remove what no run has any more: tasks whose run has ended, runs whose stack or service is gone."""
        gone = [
            t.name
            for t in self._state.tasks.values()
            if t.run and not ((run := self.book.runs.get((t.stack, t.service), {}).get(t.run)) and run.open)
        ]
        if gone:
            await self._dispatcher.remove_tasks(gone)
        known = {(r.stack.name, s.name) for r in self._state.stacks.values() for s in r.stack.services}
        known |= set(self.other.owners()) if self.other else set()
        known |= {o for o in self.book.runs if self._state.lock(f"stack {o[0]}").busy or any(r.open for r in self.book.of(*o))}
        if lost := {*self.book.runs, *self.book.schedules} - known:
            await self.book.forget(sorted(lost))


def _due(stack: str, service: str, one: Due, now: float) -> JobRun:
    ended = 0.0 if one.state == "pending" else now
    return JobRun(
        id=f"{int(one.at):010d}",
        stack=stack,
        service=service,
        trigger="schedule",
        state=one.state,
        scheduled=one.at,
        created=now,
        ended=ended,
        reason=one.reason,
    )


def _last(lines: Iterable[str], size: int) -> tuple[str, ...]:
    """The last of *lines* that have *size* bytes together at most."""
    out: list[str] = []
    for line in reversed(list(lines)):
        size -= len(line.encode()) + 1
        if size < 0:
            break
        out.append(line)
    return tuple(reversed(out))
