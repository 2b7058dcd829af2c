"""The commands that run once before and once after a service gets a new definition (`x-hooks`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from agent.contract.status import TaskStatus
from orchestrator.planning.state import Plan
from orchestrator.server import store_keys
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, StepEvent, TaskEvent
from orchestrator.server.jobs.book import RunBook
from orchestrator.server.jobs.records import JobRun, Trigger
from orchestrator.server.jobs.starter import RunStarter, kept, key_of
from orchestrator.stackfile.graph import needed
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.pre_start import hook_container
from orchestrator.stackfile.workloads import DeployHook, Job
from orchestrator.store.interface import Op, Put

When = Literal["pre_deploy", "post_deploy"]


class DeployHooks:
    """Runs hooks, and waits for them. A rollout that another leader goes on with waits for the run that there is."""

    def __init__(self, dispatcher: Dispatcher, book: RunBook, starter: RunStarter) -> None:
        self._dispatcher, self._state = dispatcher, dispatcher.state
        self._book, self._starter = book, starter

    async def run(self, when: When, stack: Stack, services: Sequence[Service], key: str, emit: Emit) -> list[Failure]:
        """Run the hooks that *services* of *stack* have for *when*, one after the other, once for *key*. Returns the first that
        fails; those after it do not run."""
        for service in services:
            hook = getattr(service.hooks, when)
            if hook and (failure := await self._one(when, stack, service, hook, f"{key}/{when}", emit)):
                return [failure]
        return []

    async def analyse(self, stack: Stack, service: Service, hook: DeployHook, emit: Emit) -> str:
        """Run *hook* beside the tasks of *service*. Returns "", or the reason why it failed."""
        failure = await self._one("analysis", stack, service, hook, f"{time.time():.3f}/analysis", emit)
        return failure.reason if failure else ""

    async def make_networks(self, plan: Plan) -> None:
        """Write the networks and volumes of *plan* that are not there yet, so that hooks can run before the tasks are."""
        state = self._state
        networks = [n for n in plan.desired.networks if n.name not in state.networks]
        volumes = [v for v in plan.desired.volumes if v.name not in state.volumes]
        operations: list[Op] = [Put(store_keys.of_network(n), msgspec.json.encode(n)) for n in networks]
        operations += [Put(store_keys.of_volume(v.name), msgspec.json.encode(v)) for v in volumes]
        await state.transact(operations)
        state.networks.update({n.name: n for n in networks})
        state.volumes.update({v.name: v for v in volumes})

    async def _one(
        self, when: Trigger, stack: Stack, service: Service, hook: DeployHook, key: str, emit: Emit
    ) -> Failure | None:
        run = next((r for r in self._book.of(stack.name, service.name) if r.iteration == key), None)
        if run is None:
            now = time.time()
            ident = self._book.next_id(stack.name, service.name, now)
            run = JobRun(id=ident, stack=stack.name, service=service.name, trigger=when, created=now, iteration=key)
            run = msgspec.structs.replace(run, deadline_s=hook.deadline_s)
            await self._book.put(run, keep=kept(service), new=True)
        name = f"{stack.name}-{service.name}-{run.id}"
        if run.state == "pending":
            emit(StepEvent(action="create", kind="task", name=name, reason=f"{when} of {service.name}"))
            failed = await self._starter.begin(_with_hook(stack, service, hook), [run], time.time())
            if reason := failed.get(key_of(run)):
                await self._book.put(msgspec.structs.replace(run, state="failed", reason=reason, ended=time.time()), keep=1)
                return Failure(task=name, where=service.where, reason=f"{when}: {reason}")
        return await self._end(run, name, service, emit)

    async def _end(self, run: JobRun, name: str, service: Service, emit: Emit) -> Failure | None:
        def listen(status: TaskStatus) -> None:
            if status.task == name:
                emit(TaskEvent.of(status))

        def over() -> JobRun | None:
            now = self._book.runs.get((run.stack, run.service), {}).get(run.id)
            if now is None:
                return msgspec.structs.replace(run, state="failed", reason="its run is not remembered any more")
            return None if now.open else now

        self._dispatcher.statuses.listeners.add(listen)
        try:
            ended = await self._dispatcher.statuses.until(over)
        finally:
            self._dispatcher.statuses.listeners.discard(listen)
        if ended.state == "succeeded":
            return None
        task = next(iter(ended.tasks), None)
        return Failure(
            task=name,
            where=service.where,
            reason=f"{run.trigger} failed: {(task and task.reason) or ended.reason}",
            exit_code=task.exit_code if task else None,
            log=task.output[-10:] if task else (),
        )


def hooked(stack: Stack, plan: Plan, when: When) -> list[Service]:
    """The services of *stack* that have a hook for *when* and whose tasks *plan* gives a new definition."""
    replaced = {s.name for s in plan.steps if s.kind == "task" and s.action in ("create", "replace")}
    services = {t.service for t in plan.desired.tasks if t.name in replaced}
    changed = {s.name for s in stack.services if s.schedule}  # no task says whether they changed: their hooks do not run
    return [s for s in stack.services if s.name in services - changed and getattr(s.hooks, when)]


def missing_needs(stack: Stack, services: Sequence[Service], there: set[str]) -> list[str]:
    """What *services* depend on and is not *there*: it comes up before their hooks run."""
    names = {s.name for s in services}
    needs = needed(stack.services, names) - names
    return [s.name for s in stack.services if s.name in needs - there]


def _with_hook(stack: Stack, service: Service, hook: DeployHook) -> Stack:
    """*stack* in which *service* is its hook."""
    one = msgspec.structs.replace(
        service,
        container=hook_container(service.container, hook.hook, hook.image),
        mode="replicated-job",
        replicas=1,
        schedule=None,
        job=Job(deadline_s=hook.deadline_s),
        container_name="",
        port_ranges=(),
    )
    return msgspec.structs.replace(stack, services=tuple(one if s.name == service.name else s for s in stack.services))
