"""Rolls a plan out, service by service: each service waits until the services that it depends on are there.

The conditions of depends_on are the gates; services without one start side by side. A failure stops the services that wait
for it; the others go on, and all failures are returned at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from agent.contract.times import seconds_of
from orchestrator.planning.jobs import held_back, is_current
from orchestrator.server.events import Failure
from orchestrator.server.rolling_update import UpdateActions, update
from orchestrator.server.rollout_control import RolloutPausedError
from orchestrator.server.staged_update import update_staged
from orchestrator.server.statuses import Statuses, serves
from orchestrator.stackfile.model import Dependency, Service
from orchestrator.tracing.spans import record, span

SETTLE_S = 0.1
LOOP_LIMIT = 5
LISTEN_S = 5.0
"""How long an update waits for a task without a healthcheck to listen: one that never does is up, and gets no connections as
long as others of its service do."""


class DependencyFailedError(Exception):
    """A service that this one waits for has failed; the failure itself is in the rollout's list already."""


class TaskControl(Protocol):
    """What a rollout needs of the cluster; the `Dispatcher` has it."""

    statuses: Statuses

    async def write_tasks(self, tasks: Sequence[Task]) -> None:
        """Write *tasks* to the store and deliver them to their nodes."""
        ...

    def unreachable_reason(self, task: Task) -> str:
        """Why the node of *task* does not answer, "" if it does."""
        ...


def verdict(task: Task, status: TaskStatus | None, *, now: float, want: str) -> str | None:
    """None while it is open, "" once *want* holds, or the reason why it never will.

    *want* is "made" (has a container), "up" (runs and stays up, is healthy if it has a healthcheck, or ended with exit code 0),
    "begun" (was started, in success or failure), or a condition of depends_on. *now* is in seconds since the epoch."""
    if status is None:
        return None
    if status.error and (status.state == "failed" or not status.container):
        return status.error
    if not is_current(task, status):
        return None
    if want == "made" or (want == "begun" and status.state in ("running", "paused", "restarting", "exited", "failed")):
        return ""
    if status.state in ("exited", "failed"):
        return _ended(status, want)
    if status.state == "restarting" and status.restarts >= LOOP_LIMIT:
        return f"{_end(status)} and was restarted {status.restarts} times"
    if status.state not in ("running", "paused") or want == "service_completed_successfully":
        return None
    if want == "service_healthy" and not status.health:
        return "has no healthcheck, so it can never be healthy: give it one, or wait for service_started"
    if status.health == "unhealthy" and want != "service_started":
        return "is unhealthy"
    if status.health == "starting" and want != "service_started":
        return None
    if want == "service_started" or status.health == "healthy":
        return ""
    # a process that dies in its first moments must not pass for a service that runs; one that began far in the future was not
    # begun just now either: a clock was set back
    return "" if abs(now - _epoch(status.started)) >= SETTLE_S else None


def _ended(status: TaskStatus, want: str) -> str:
    """The verdict on a task that has ended."""
    if want == "service_started" and status.started:  # what came of it is another condition's business
        return ""
    if status.exit_code == 0:
        return "" if want in ("up", "service_completed_successfully") else "exited before it was healthy"
    return _end(status)


def _end(status: TaskStatus) -> str:
    return "out of memory" if status.oom_killed else f"exited with {status.exit_code}"


def _epoch(stamp: str) -> float:
    return seconds_of(stamp) if stamp else time.time()


def _down_reason(task: Task, status: TaskStatus | None) -> str:
    """Why *task*, which was up, is not any more; "" while it is."""
    if status is None or not is_current(task, status):
        return ""
    if status.health == "unhealthy":
        return "is unhealthy"
    if status.state == "restarting" or (status.state in ("exited", "failed") and status.exit_code):
        return "out of memory" if status.oom_killed else f"exited with {status.exit_code}"
    return status.error


@contextmanager
def _timed(task: Task, statuses: Statuses, began: float) -> Iterator[None]:
    """A span from *began* until *task* is up, with what its node says of the parts; by its own clock, kept within the span."""
    with span("task", since_s=began, task=task.name, service=task.service, node=task.node) as attributes:
        try:
            yield
        finally:
            status, now = statuses.by_task.get(task.name), time.time()
            if status:
                attributes |= {"state": status.state, "health": status.health}
                made, started = (min(max(_epoch(at), began), now) for at in (status.created, status.started))
                if status.started and started > began:
                    record("create", began, min(made, started), node=task.node)
                    record("start", min(made, started), started, node=task.node)
                    if status.health:
                        record("wait healthy", started, now, node=task.node)


class Rollout:
    """The rollout of one plan. *want* is what it waits for with every task: "up", "begun", or "" for nothing. *timeout_s* is
    the longest wait for one task. *rolling* lists the tasks that a rolling update replaces, as they are now (service → name →
    task); *actions* replaces them."""

    def __init__(
        self,
        services: Sequence[Service],
        tasks: Sequence[Task],
        control: TaskControl,
        *,
        want: str,
        timeout_s: float | None,
        rolling: Mapping[str, Mapping[str, Task]] = {},
        actions: UpdateActions | None = None,
    ) -> None:
        self.services = {s.name: s for s in services}
        self.tasks: dict[str, list[Task]] = {}
        self.set_tasks(tasks)
        self.control = control
        self.statuses = control.statuses
        self.want = want
        self.timeout_s = timeout_s
        self.actions = actions
        self.failures: list[Failure] = []
        self.rolling = rolling
        self.reverted: set[str] = set()
        """Services whose update failed, and which have their old definition again."""
        self.bystanders: set[str] = set()
        """Services that others may wait for, and that nothing is asked of here."""
        self.followers: set[str] = set()
        """Services whose tasks the nodes start again by themselves, after those of the services that they depend on."""
        self._kept: set[str] = set()
        self._begun: dict[str, float] = {}  # when the tasks of services that were held might begin, in seconds since 1970

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Roll out *tasks*, in this order within each service: they are about to be written, and may begin from now on."""
        self._written_at = time.time()
        self.tasks = {}
        for task in tasks:
            self.tasks.setdefault(task.service, []).append(task)

    def must_wait(self, service: str) -> bool:
        """Whether *service* depends on a service that is not yet as far as it must be."""
        one = self.services.get(service)
        return one is not None and any(not self._met(d) for d in self._needs(one))

    def must_follow(self, task: Task) -> bool:
        """Whether *task* begins after another replica of its service."""
        one = self.services.get(task.service)
        return one is not None and one.stable == "ordered" and task.index > 1

    def _needs(self, one: Service) -> list[Dependency]:
        return [d for d in one.depends_on if d.service in self.tasks]

    def _met(self, dependency: Dependency) -> bool:
        now = time.time()
        return all(
            verdict(t, self.statuses.by_task.get(t.name), now=now, want=dependency.condition) == ""
            for t in self.tasks[dependency.service]
        )

    async def run(self) -> list[Failure]:
        """Roll out every service, side by side. Returns the tasks that failed."""
        try:
            async with asyncio.TaskGroup() as group:
                for name in self.tasks:
                    group.create_task(self._service(name))
        except ExceptionGroup as errors:
            if paused := errors.subgroup(RolloutPausedError):
                raise paused.exceptions[0] from None
            raise
        return self.failures

    async def made(self) -> list[Failure]:
        """Wait until every task has its container, started or not. Returns the tasks that failed."""
        await asyncio.gather(
            *(self._up(t, "made") for n, tasks in self.tasks.items() if n not in self.bystanders for t in tasks)
        )
        return self.failures

    async def conditions(self, service: str) -> list[Failure]:
        """Wait for what the depends_on of *service* says, which itself is not rolled out. Returns what failed."""
        one = self.services[service]
        for dependency in self._needs(one):
            try:
                await self._gate(dependency)
            except DependencyFailedError:
                if dependency.required:
                    self._give_up(one, dependency)
                    break
        return self.failures

    async def _service(self, name: str) -> None:
        one = self.services.get(name)
        if one is None or name in self.bystanders:
            return
        held = [t for t in self.tasks[name] if t.desired == "waiting"]
        rolling = self.rolling.get(name, {})
        if held or rolling or name in self.followers:
            for dependency in self._needs(one):
                try:
                    await self._gate(dependency)
                except DependencyFailedError:
                    if dependency.required:
                        self._kept |= rolling.keys()
                        return self._give_up(one, dependency)
        if not await self._bring_up(one, held, dict(rolling)):
            return
        # the end of a job is waited for when the stack is not held any more
        if self.want and not (one.is_job and self.want == "up"):
            for task in self.tasks[name]:
                if task.name not in rolling:
                    await self._up(task)

    async def _bring_up(self, one: Service, held: Sequence[Task], rolling: dict[str, Task]) -> bool:
        """Let the tasks go that are on hold, and exchange those *rolling*. Returns whether the service goes on."""
        if held and one.stable == "ordered":
            if not await self._in_order(one, held, rolling):
                self._kept |= rolling.keys()
                return False
        elif held:
            await self._release(one, held)
        if rolling:
            if not await self._others_up(one, rolling):
                self._kept |= rolling.keys()
                return False
            await self._update(one, rolling)
        return True

    async def _release(self, one: Service, held: Sequence[Task]) -> None:
        """Let tasks go that were on hold."""
        later = held_back(one, self.tasks[one.name], self.statuses.by_task)
        released = [msgspec.structs.replace(t, desired="running") for t in held if t.name not in later]
        self._begun[one.name] = time.time()
        await self.control.write_tasks(released)
        self.tasks[one.name] = [next((r for r in released if r.name == t.name), t) for t in self.tasks[one.name]]

    async def _in_order(self, one: Service, held: Sequence[Task], rolling: dict[str, Task]) -> bool:
        """Let the replicas of a stable service go, each when the one before it is up. One of *rolling*, which are to be
        exchanged, that does not serve as it is, is exchanged and taken out there: the others would wait for it for ever.
        Returns whether all are up."""
        for task in sorted(self.tasks[one.name], key=lambda t: t.index):
            if task.name in rolling:
                if not self._serves(task.name):
                    known = len(self.failures)
                    await self._update(one, {task.name: rolling.pop(task.name)})
                    if len(self.failures) > known:
                        return False
                continue
            if task in held:
                task = msgspec.structs.replace(task, desired="running")
                await self.control.write_tasks([task])
                self.tasks[one.name] = [task if t.name == task.name else t for t in self.tasks[one.name]]
            if self.want and (reason := await self._wait_stable(task, 0)):
                self._fail(task, reason)
                return False
        return True

    async def _others_up(self, one: Service, rolling: Mapping[str, Task]) -> bool:
        """Whether all replicas of a stable service are up that are not to be exchanged: two may not be away at once."""
        for task in self.tasks[one.name] if one.stable else ():
            if task.name in rolling or task.desired != "running":
                continue
            if reason := await self._wait_stable(task, 0):
                self._fail(task, reason)
                return False
        return True

    async def _update(self, one: Service, before: Mapping[str, Task]) -> None:
        assert self.actions
        # tasks that do not serve go first: nothing is lost by it
        after = sorted(
            (t for t in self.tasks[one.name] if t.name in before),
            key=lambda t: (self._serves(t.name), -t.index if one.stable else t.index),
        )
        if one.staged:
            outcome = await update_staged(one, one.staged, before, after, self.actions, self._wait_stable, self._down)
        else:
            outcome = await update(one, before, after, self.actions, self._wait_stable)
        self._kept |= set(outcome.kept)
        for name, reason in outcome.reasons.items():
            self._fail(next((t for t in after if t.name == name), msgspec.structs.replace(after[0], name=name)), reason)
        if outcome.reverted:
            self.reverted.add(one.name)
            self._fail(
                msgspec.structs.replace(after[0], name=f"{after[0].stack}/{one.name}"),
                "the update failed and was taken back: all tasks have the definition from before",
            )
        elif outcome.kept:
            self._fail(
                msgspec.structs.replace(after[0], name=f"{after[0].stack}/{one.name}"),
                f"the update stops here: {len(outcome.kept)} of {len(after)} tasks keep the definition from before; mend the "
                "file and `pystack up`, or `pystack rollback`",
            )
        self.statuses.wake()

    def _serves(self, task: str) -> bool:
        status = self.statuses.by_task.get(task)
        return status is not None and serves(status)

    async def _until(self, answer: Callable[[], str | None], task: Task, began: float) -> str:
        with _timed(task, self.statuses, began):
            return await self.statuses.until(answer, within_s=self.timeout_s, of=task.name)

    async def _wait_stable(self, task: Task, seconds: float) -> str:
        """Wait until *task* is up and takes connections, and then for *seconds*. Returns "", or the reason why it failed."""

        def up() -> str | None:
            status = self.statuses.by_task.get(task.name)
            found = self.control.unreachable_reason(task) or verdict(task, status, now=time.time(), want="up")
            if found == "" and status and not status.listens and abs(time.time() - _epoch(status.started)) < LISTEN_S:
                return None
            return found

        try:
            if reason := await self._until(up, task, time.time()):
                return reason
        except TimeoutError:
            return f"is not up after {self.timeout_s:g} s"
        try:
            return await self.statuses.until(lambda: self._down([task]), within_s=seconds, of=task.name) if seconds else ""
        except TimeoutError:
            return ""

    def _down(self, tasks: Sequence[Task]) -> str | None:
        """Why one of *tasks*, which were up, is not any more; None while all are."""
        return next((why for t in tasks if (why := _down_reason(t, self.statuses.by_task.get(t.name)))), None)

    def _give_up(self, one: Service, dependency: Dependency) -> None:
        self.failures.append(
            Failure(
                task=next((t.name for t in self.tasks.get(one.name, ())), one.name),
                where=dependency.where or one.where,
                reason=f"was not started: it waits for {dependency.service} ({dependency.condition})",
                waits_for=dependency.service,
                condition=dependency.condition,
            )
        )

    async def _gate(self, dependency: Dependency) -> None:
        bystander = dependency.service in self.bystanders
        if bystander and dependency.condition == "service_started":
            return  # to start one service alone leaves the others as they are. Source: docker compose restart
        for task in self.tasks[dependency.service]:
            if bystander and task.desired == "waiting":
                self._fail(task, "was never started")
                raise DependencyFailedError

            def answer(task: Task = task) -> str | None:
                if task.name in self._kept or any(f.task == task.name for f in self.failures):
                    return "failed"
                current = next((t for t in self.tasks[task.service] if t.name == task.name), task)
                status = self.statuses.by_task.get(task.name)
                return self.control.unreachable_reason(current) or verdict(
                    current, status, now=time.time(), want=dependency.condition
                )

            try:
                reason = await self.statuses.until(answer, within_s=self.timeout_s, of=task.name)
            except TimeoutError:
                reason = f"not {dependency.condition} after {self.timeout_s:g} s"
            if reason:
                if task.name not in self._kept and dependency.required:
                    self._fail(task, reason)
                raise DependencyFailedError

    async def _up(self, task: Task, want: str = "") -> None:
        def answer() -> str | None:
            status = self.statuses.by_task.get(task.name)
            return self.control.unreachable_reason(task) or verdict(task, status, now=time.time(), want=want or self.want)

        try:
            reason = await self._until(answer, task, self._begun.get(task.service, self._written_at))
        except TimeoutError:
            status = self.statuses.by_task.get(task.name)
            state = (status.health or status.state) if status else "pending"
            reason = f"is still {state} after {self.timeout_s:g} s"
        if reason:
            self._fail(task, reason)

    def _fail(self, task: Task, reason: str) -> None:
        if all(f.task != task.name for f in self.failures):
            status = self.statuses.by_task.get(task.name)
            self.failures.append(
                Failure(
                    task=task.name,
                    where=task.where,
                    reason=reason,
                    exit_code=status.exit_code if status else None,
                    service=task.service,
                )
            )
