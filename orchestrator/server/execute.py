"""Carries out a plan: prepares the nodes, writes the plan to the store, and rolls it out service by service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import msgspec

from agent.contract.container import adjusted
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning.jobs import held_back
from orchestrator.planning.state import Plan
from orchestrator.server import store_keys
from orchestrator.server.contents import Contents
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, StepEvent, TaskEvent, WarningEvent
from orchestrator.server.images import Images
from orchestrator.server.jobs.hooks import DeployHooks, hooked, missing_needs
from orchestrator.server.jobs.waiting import JobWaiter
from orchestrator.server.oneoff import ended_oneoffs, remove_oneoffs
from orchestrator.server.plan import Planner, chosen_services
from orchestrator.server.preemption import evict
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.records import RolloutVerb, UpOptions
from orchestrator.server.rollout import Rollout
from orchestrator.server.rollout_control import RolloutControl
from orchestrator.server.traffic import TrafficSource
from orchestrator.server.update_executor import UpdateExecutor, Wanted
from orchestrator.stackfile.model import Service, Stack, UpdateConfig
from orchestrator.store.interface import Delete, Op, Put
from orchestrator.tracing.spans import span


class PlanExecutor:
    """Makes stacks true. One stack at a time, under its lock."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        planner: Planner,
        contents: Contents,
        images: Images,
        waiter: JobWaiter,
        hooks: DeployHooks,
    ) -> None:
        self.planner = planner
        self.cluster, self.statuses = dispatcher.cluster, dispatcher.statuses
        self._waiter, self._hooks = waiter, hooks
        self._dispatcher = dispatcher
        self._state = dispatcher.state
        self._contents = contents
        self._images = images
        self.finishers: list[Callable[[Stack, UpOptions, Emit], Awaitable[list[Failure]]]] = []
        """What packages above the server wait for once the tasks of a stack are up."""
        self.requests: TrafficSource | None = None
        """Who sees the requests to tasks, if anybody does."""

    async def up(
        self,
        stack: Stack,
        options: UpOptions,
        emit: Emit,
        *,
        control: RolloutControl | None = None,
        verb: RolloutVerb = "up",
        instead_of: Collection[str] = (),
    ) -> list[Failure]:
        """Make *stack* true, under the name *verb* and in place of changes of the verbs *instead_of*; *control* is asked on the
        way. Returns the tasks that failed. Raises RefusedError, PystackError, and what *control* raises."""
        control = control or RolloutControl()
        control.hooks = self._hooks
        async with self._state.lock(f"stack {stack.name}").hold(verb, emit, instead_of=instead_of):
            stack, options = await control.wanted(stack, options)
            failures = await self._images.pull(stack, chosen_services(stack, options), options.pull, emit)
            if failures:
                return failures
            if options.remove_orphans:
                await remove_oneoffs(self._dispatcher, await ended_oneoffs(self._dispatcher, stack.name), emit)
            plan, failures = await self._carry_out(stack, options, emit, control)
            after = hooked(stack, plan, "post_deploy")
            if after and not failures and not options.no_start and not options.back:
                failures = await self._hooks.run("post_deploy", stack, after, control.key, emit)
        return await self.finish_jobs(stack, options, emit, failures)

    async def _carry_out(
        self, stack: Stack, options: UpOptions, emit: Emit, control: RolloutControl
    ) -> tuple[Plan, list[Failure]]:
        """Plan and execute; where hooks run before, the plan is made again after them. Returns the first plan, and what
        failed."""
        async with self.allocated(stack.name) as held:
            plan = await self._plan(stack, options, held)
            present = self._state.stacks.get(stack.name)
            await control.begin(plan, present.stack if present else None)
            for warning in plan.warnings:
                emit(WarningEvent(message=warning))
            first = [] if options.no_start or options.no_tasks or options.back else hooked(stack, plan, "pre_deploy")
            if not first:
                return plan, await self.execute_plan(stack, plan, options, emit, held, control)
        if failures := await self._before(stack, plan, first, options, control, emit):
            return plan, failures
        async with self.allocated(stack.name) as held:
            again = await self._plan(stack, options, held)
            return plan, await self.execute_plan(stack, again, options, emit, held, control)

    async def _plan(self, stack: Stack, options: UpOptions, held: AsyncExitStack) -> Plan:
        """Plan; until *held* is closed nobody else gets the places and addresses in it."""
        plan = await self.planner.plan(stack, options)
        plan = plan.without_tasks(self._state.of_stack(stack.name)) if options.no_tasks else plan
        held.enter_context(self._state.expected(stack, plan.desired.tasks, plan.desired.networks))
        return plan

    async def _before(
        self, stack: Stack, plan: Plan, first: Sequence[Service], options: UpOptions, control: RolloutControl, emit: Emit
    ) -> list[Failure]:
        """Run the pre_deploy hooks of the services *first*, once what those depend on is there. Returns what failed."""
        await self._contents.keep(stack.contents)
        if missing := missing_needs(stack, first, {t.service for t in self._state.of_stack(stack.name).tasks if t.planned}):
            some = msgspec.structs.replace(options, services=tuple(missing), no_deps=False, wait=True, remove_orphans=False)
            async with self.allocated(stack.name) as held:
                needs = await self._plan(stack, some, held)
                if failures := await self.execute_plan(stack, needs, some, emit, held, control):
                    return failures
        await self._hooks.make_networks(plan)
        await control.note(f"runs the pre_deploy hooks of {', '.join(s.name for s in first)}")
        return await self._hooks.run("pre_deploy", self._contents.with_digests(stack), first, control.key, emit)

    @asynccontextmanager
    async def allocated(self, stack: str) -> AsyncIterator[AsyncExitStack]:
        """Hold the right to give tasks of *stack* nodes and addresses, until what is yielded is closed or the block ends."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._state.allocation(stack))
            yield held

    async def finish_jobs(self, stack: Stack, options: UpOptions, emit: Emit, failures: list[Failure]) -> list[Failure]:
        """Wait for the jobs of *stack* as far as *options* say so; the stack is free for other changes meanwhile. Returns
        *failures*, and those of the jobs."""
        chosen = chosen_services(stack, options)
        jobs = {s.name for s in stack.services if s.is_job and (chosen is None or s.name in chosen)}
        if not jobs or not options.wait or options.no_start or options.no_tasks:
            return failures
        failed = {f.task for f in failures}
        tasks = [t for t in self._state.of_stack(stack.name).tasks if t.service in jobs and t.planned and t.name not in failed]
        with self._reported(tasks, emit):
            found = await self._waiter.wait(tasks, options.timeout_s)
        return failures + [await self._dispatcher.with_log(f) for f in found]

    async def execute_plan(
        self,
        stack: Stack,
        plan: Plan,
        options: UpOptions,
        emit: Emit,
        held: AsyncExitStack,
        control: RolloutControl,
    ) -> list[Failure]:
        """Do exactly what *plan* says; the caller holds the stack's lock, and *held* from before the plan was made: it is
        closed when the tasks are written. Returns the tasks that failed; those of jobs have begun, `finish_jobs` waits for
        them."""
        await self._contents.keep(stack.contents)
        names = {t.name: t.container_name for t in (*self._state.of_stack(stack.name).tasks, *plan.desired.tasks)}
        for step in plan.changes:
            emit(StepEvent.of(step, names.get(step.name, "") if step.kind == "task" else ""))
        stack = self._contents.with_digests(stack)
        before = control.before or (self._state.stacks[stack.name].stack if stack.name in self._state.stacks else stack)
        changed = {s.name for s in plan.changes if s.kind == "task"}
        absent = _waiting_for_nodes(stack, plan, self._dispatcher)
        failures = await prepare_nodes(
            self._dispatcher.cluster,
            self._images,
            plan.desired.tasks,
            plan.desired.networks,
            emit,
            unchanged={t.name for t in plan.desired.tasks} - changed | absent,
        )
        if failures:
            return failures
        rolling = {} if options.no_start else self._rolling(stack, plan, absent)
        with span("remove what leaves"):
            await self._remove_leaving(plan, rolling)
        wanted = Wanted(stack, options, plan)
        actions = UpdateExecutor(self._dispatcher, self.planner, self._images, wanted, emit, control, self.requests)
        rollout = self._rollout(stack, plan, options, rolling, actions)
        in_place = {name for tasks in rolling.values() for name in tasks}
        followers = {s.name for s in plan.changes if s.follows}
        tasks = [self._task(t, rollout, options, in_place, changed, followers) for t in plan.desired.tasks if t.planned]
        left = _left_alone(tasks, changed, absent, self._dispatcher, emit)
        tasks = _in_turn(stack, tasks, changed, self._dispatcher.statuses.by_task)
        rollout.set_tasks([t for t in tasks if t.name not in left])
        new = [t for t in tasks if t.name not in in_place and self._state.tasks.get(t.name) != t]
        with span("write and deliver"):
            await self._write_plan(stack, plan, new, options)
        control.written.set()
        await held.aclose()
        # what is exchanged one by one has its place on another node before it is written there
        with span("roll out"), self._reported(tasks, emit), self._state.expected(stack, plan.desired.tasks):
            failures = [] if options.no_tasks else await (rollout.made() if options.no_start else rollout.run())
            if options.conditions_of and not failures:
                failures = await rollout.conditions(options.conditions_of)
        if options.wait and not (failures or options.no_start or options.no_tasks):
            with span("settle"):
                failures = [failure for finish in self.finishers for failure in await finish(stack, options, emit)]
        if rollout.reverted:
            await self._write_reverted(stack, rollout.reverted, before, options)
        return [await self._dispatcher.with_log(f) for f in failures]

    def _rollout(
        self, stack: Stack, plan: Plan, options: UpOptions, rolling: Mapping[str, Mapping[str, Task]], actions: UpdateExecutor
    ) -> Rollout:
        services = {s.name for s in stack.services}
        rollout = Rollout(
            [_backwards(s) for s in stack.services] if options.back else stack.services,
            [t for t in plan.desired.tasks if t.service in services and t.planned],
            self._dispatcher,
            want="up" if options.wait else "begun" if options.attached else "",
            timeout_s=options.timeout_s,
            rolling=rolling,
            actions=actions,
        )
        # what an earlier command left of services that this one is not for is none of its failures
        changed = {s.name for s in plan.changes if s.kind == "task"}
        concerned = {t.service for t in plan.desired.tasks if t.name in changed}
        rollout.bystanders = services - (chosen_services(stack, options) or services) - concerned
        return rollout

    def _rolling(self, stack: Stack, plan: Plan, absent: Set[str]) -> dict[str, dict[str, Task]]:
        """The tasks that a rolling update replaces, as they are now, but for those *absent*: service → name → task."""
        paced = {s.name for s in stack.services if (s.update or s.staged) and not s.is_job}
        replaced = {s.name for s in plan.steps if s.kind == "task" and s.action == "replace"} - absent
        out: dict[str, dict[str, Task]] = {}
        for task in plan.desired.tasks:
            if task.service in paced and task.name in replaced and self._state.tasks[task.name].desired == "running":
                out.setdefault(task.service, {})[task.name] = self._state.tasks[task.name]
        return out

    async def _remove_leaving(self, plan: Plan, rolling: Mapping[str, Mapping[str, Task]]) -> None:
        """Drain and remove the tasks that the plan removes or moves to another node, and wait until they are gone."""
        await evict(self._dispatcher, plan.stack, plan.desired.evicted)
        known = self._state.tasks.keys() - {name for tasks in rolling.values() for name in tasks}
        removed = [s.name for s in plan.steps if s.action == "remove" and s.kind == "task" and s.cause != "preempted"]
        moved = [t.name for t in plan.desired.tasks if t.name in known and self._state.tasks[t.name].node != t.node]
        if leaving := [*removed, *moved]:
            async with self._dispatcher.drained(leaving):
                await self._dispatcher.remove_tasks(leaving)
                await self._dispatcher.wait_removed(leaving)
        await self._dispatcher.wait_held(plan.desired.tasks)

    def _task(
        self,
        task: Task,
        rollout: Rollout,
        options: UpOptions,
        in_place: Set[str],
        changed: Set[str],
        followers: Set[str],
    ) -> Task:
        """*task* as it is written first: on hold if it must wait for others, and as it is if the plan leaves it alone."""
        if task.name in in_place:
            return task
        if task.name not in changed:
            known = self._state.tasks.get(task.name, task)  # what is not its container's may change while it runs
            return msgspec.structs.replace(known, boot_wait_s=task.boot_wait_s, balanced=task.balanced)
        old = self._state.tasks.get(task.name)
        if old and old.desired == "running" and adjusted(old.container, task.container):
            return task  # it is given its addresses as it runs
        if old and (old.container, old.generation, old.node) == (task.container, task.generation, task.node):
            return msgspec.structs.replace(task, desired=old.desired)  # nothing of it but what its images may be
        waits = not options.no_deps or task.name in followers
        hold = options.no_start or (waits and rollout.must_wait(task.service)) or rollout.must_follow(task)
        return msgspec.structs.replace(task, desired="waiting" if hold else "running", renew=options.renew_volumes)

    async def _write_plan(self, stack: Stack, plan: Plan, tasks: Sequence[Task], options: UpOptions) -> None:
        """Write the stack's revision and all of the plan, in as few transactions as the store allows. Nothing is written if
        nothing changed."""
        state = self._state
        removed = [s.name for s in plan.steps if s.action == "remove" and s.kind == "network"]
        operations: list[Op] = [
            Put(store_keys.of_network(n), msgspec.json.encode(n))
            for n in plan.desired.networks
            if state.networks.get(n.name) != n
        ]
        operations += [
            Put(store_keys.of_volume(v.name), msgspec.json.encode(v))
            for v in plan.desired.volumes
            if state.volumes.get(v.name) != v
        ]
        operations += [Put(store_keys.of_task(t), msgspec.json.encode(t)) for t in tasks]
        operations += [Delete(store_keys.of_network(name)) for name in removed]
        settled = state.settled(plan.stack, plan.desired)
        operations += [Delete(store_keys.of_preempted(stack.name, n)) for n in settled]
        old = state.stacks.get(stack.name)
        if not operations and old and old.stack == stack:
            return
        record, revision = await state.next_revision(stack, options)
        await state.transact([*revision, *operations])
        self._dispatcher.statuses.outdate(tasks)
        state.stacks[stack.name] = record
        state.networks.update({n.name: n for n in plan.desired.networks})
        state.volumes.update({v.name: v for v in plan.desired.volumes})
        state.tasks.update({t.name: t for t in tasks})
        for name in removed:
            state.networks.pop(name, None)
        state.preempted = {n: e for n, e in state.preempted.items() if n not in settled}
        await self._dispatcher.cluster.deliver()

    async def _write_reverted(self, stack: Stack, services: Set[str], before: Stack, options: UpOptions) -> None:
        """Write a revision in which *services*, whose update was rolled back, have the definition from *before*."""
        old = {s.name: s for s in before.services if s.name in services}
        known = {(c.kind, c.name) for c in stack.contents}
        merged = msgspec.structs.replace(
            stack,
            services=tuple(old.get(s.name, s) for s in stack.services),
            contents=(*stack.contents, *(c for c in before.contents if (c.kind, c.name) not in known)),
        )
        message = f"the update of {', '.join(sorted(services))} failed and was taken back"
        record, operations = await self._state.next_revision(merged, msgspec.structs.replace(options, message=message))
        await self._state.transact(operations)
        self._state.stacks[stack.name] = record

    @contextmanager
    def _reported(self, tasks: Sequence[Task], emit: Emit) -> Iterator[None]:
        """Meanwhile every change of the status of *tasks* is an event."""
        names = {t.name for t in tasks}

        def listen(status: TaskStatus) -> None:
            if status.task in names:
                emit(TaskEvent.of(status))

        self._dispatcher.statuses.listeners.add(listen)
        try:
            yield
        finally:
            self._dispatcher.statuses.listeners.discard(listen)


def _backwards(service: Service) -> Service:
    """*service* with the pace at which an update is taken back; a job has none."""
    if service.is_job:
        return service
    return msgspec.structs.replace(service, update=service.rollback or UpdateConfig(), staged=None)


def _left_alone(tasks: Sequence[Task], changed: Set[str], absent: Set[str], dispatcher: Dispatcher, emit: Emit) -> set[str]:
    """The names of those of *tasks* that nothing is done with now, as their nodes do not answer; each is a warning."""
    left = set()
    for task in tasks:
        if (task.name not in changed or task.name in absent) and (why := dispatcher.unreachable_reason(task)):
            what = "is changed when its node is back" if task.name in changed else "is left as it is"
            emit(WarningEvent(message=f"{task.name} {what}: {why}"))
            left.add(task.name)
    return left


def _in_turn(stack: Stack, tasks: Sequence[Task], changed: Set[str], statuses: Mapping[str, TaskStatus]) -> list[Task]:
    """*tasks*, with those of jobs on hold of which others run first."""
    later: set[str] = set()
    of_service: dict[str, list[Task]] = {}
    for task in tasks:
        of_service.setdefault(task.service, []).append(task)
    for service in stack.services:
        later |= held_back(service, of_service.get(service.name, []), statuses)
    return [msgspec.structs.replace(t, desired="waiting") if t.name in later & changed else t for t in tasks]


def _waiting_for_nodes(stack: Stack, plan: Plan, dispatcher: Dispatcher) -> set[str]:
    """The tasks of mode global on nodes that do not answer: nobody else can have them, and nobody waits for them."""
    everywhere = {s.name for s in stack.services if s.mode == "global"}
    tasks = plan.desired.tasks
    return {t.name for t in tasks if t.service in everywhere and dispatcher.unreachable_reason(t)}
