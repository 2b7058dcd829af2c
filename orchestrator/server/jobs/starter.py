"""Gives the tasks of runs nodes and addresses, and writes them together with their runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from agent.contract.container import Container, Healthcheck
from agent.contract.network import Network
from agent.contract.task import BOOT_WAIT_S, Task
from orchestrator.errors import PystackError
from orchestrator.placement.arrange import arrange_oneoff
from orchestrator.placement.assign import place_oneoff
from orchestrator.placement.eviction import Eviction
from orchestrator.planning.expand import address_oneoff
from orchestrator.planning.state import State
from orchestrator.server import store_keys
from orchestrator.server.contents import files_with_digests
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import ignore
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.jobs.book import RunBook
from orchestrator.server.jobs.records import HOOKS, JobRun
from orchestrator.server.preemption import evict
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.trust import TrustCheck
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.interface import Op, Put

log = logging.getLogger(__name__)


RunKey = tuple[str, str]
"""A run within the cluster's stacks: `<stack>/<service>`, and its ID, which runs of other services may have too."""


class Prepared(msgspec.Struct, kw_only=True):
    """What a run needs to begin: its *tasks*, and the *networks* that their nodes carry because of them. *evicted* are tasks of
    lower priorities that have to go before."""

    run: JobRun
    tasks: list[Task]
    networks: list[Network]
    evicted: list[Eviction]


class RunStarter:
    """Begins runs. All of it may be cut off and done again: the names of a run's tasks follow from the run."""

    def __init__(self, dispatcher: Dispatcher, images: Images, inputs: Inputs, book: RunBook) -> None:
        self._dispatcher, self._state = dispatcher, dispatcher.state
        self._images, self._inputs, self._book = images, inputs, book
        self._trust = TrustCheck(dispatcher.cluster, images)
        self._making_room: dict[RunKey, asyncio.Task[None]] = {}
        """By run: what takes tasks away for it."""

    async def begin(self, stack: Stack, runs: Sequence[JobRun], now: float) -> dict[RunKey, str]:
        """Give *runs*, which are pending, their tasks. Returns those that could not begin, with the reason. One for which
        others have to go begins by itself once they are gone."""
        runs = [r for r in runs if key_of(r) not in self._making_room]
        return await self._begin(stack, runs, now) if runs else {}

    async def _begin(self, stack: Stack, runs: Sequence[JobRun], now: float) -> dict[RunKey, str]:
        failed: dict[RunKey, str] = {}
        services = {s.name: s for s in stack.services}
        await self._bring(stack, {r.service for r in runs})
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._state.allocation(stack.name))
            ids = await self._images.ids(stack)
            current, networks = self._state.of_stack(stack.name), dict(self._state.networks)
            begun: list[Prepared] = []
            for run in runs:
                try:
                    trust = (await self._trust.trusted(stack, {run.service})).get(run.service)
                    made = self._place(stack, services[run.service], run, current, networks, ids)
                except PystackError as error:
                    failed[key_of(run)] = str(error)
                    continue
                if made.evicted:
                    failed[key_of(run)] = self._make_room(stack, made, now)
                    continue
                made.tasks = [msgspec.structs.replace(t, trust=trust) for t in made.tasks]
                held.enter_context(self._state.expected(stack, made.tasks))  # nobody else gets that room
                current = msgspec.structs.replace(current, tasks=(*current.tasks, *made.tasks))
                networks |= {n.name: n for n in made.networks}
                begun.append(made)
            tasks = [t for one in begun for t in one.tasks]
            wide = {n.name: networks[n.name] for one in begun for n in one.networks}
            for failure in await prepare_nodes(self._dispatcher.cluster, self._images, tasks, list(wide.values()), ignore):
                failed |= {key_of(one.run): failure.reason for one in begun if any(t.name == failure.task for t in one.tasks)}
            begun = [one for one in begun if key_of(one.run) not in failed]
            for one in begun:
                await self._write(one, services[one.run.service], [wide[n.name] for n in one.networks], now)
        if begun:
            await self._dispatcher.cluster.deliver()
        return failed

    def _make_room(self, stack: Stack, made: Prepared, now: float) -> str:
        """Begin to take away who has to go for a run, which others do not wait for. Returns why the run does not begin yet."""
        key, lock = key_of(made.run), self._state.lock(f"stack {stack.name}")
        going = ", ".join(e.task for e in made.evicted)
        if lock.busy:
            return f"{going} is to make room for it, and the stack is being changed"
        if key not in self._making_room:
            work = asyncio.create_task(self._begin_after(stack, made, now), name=f"make room for {made.run.service}")
            self._making_room[key] = work
            work.add_done_callback(lambda _: self._making_room.pop(key, None))
        return f"{going} makes room for it"

    async def _begin_after(self, stack: Stack, made: Prepared, now: float) -> None:
        """Take away who has to go for a run, and let it begin. What goes wrong is tried again with the run."""
        try:
            async with self._state.lock(f"stack {stack.name}").hold("preempt"):
                with self._state.expected(stack, made.tasks):  # the room is its own from here on
                    await evict(self._dispatcher, stack.name, made.evicted)
                    if (run := self._book.runs.get((stack.name, made.run.service), {}).get(made.run.id)) and run.open:
                        await self._begin(stack, [run], now)
        except PystackError as error:
            log.warning("no room is made for run %s of %s/%s: %s", made.run.id, stack.name, made.run.service, error)

    async def _bring(self, stack: Stack, services: set[str]) -> None:
        """Pull what no node has any more; an image that is still missing is an error of the task that needs it."""
        have = await self._images.ids(stack)
        if any(i not in have for s in stack.services if s.name in services for i in s.container.images):
            await self._images.pull(stack, services, "", ignore)

    def _place(
        self,
        stack: Stack,
        service: Service,
        run: JobRun,
        current: State,
        networks: dict[str, Network],
        ids: dict[str, str],
    ) -> Prepared:
        """The tasks of *run* with nodes and addresses. Raises UnschedulableError and what else keeps it from its place."""
        container = container_of(stack, service, run, ids)
        context = self._inputs.placement(stack.name)
        count = service.replicas if run.trigger in ("schedule", "hand") else 1
        self._inputs.quotas.require_more(stack, service.name, count)
        made = Prepared(run=run, tasks=[], networks=[], evicted=[])
        for index in range(1, count + 1):
            name = f"{stack.name}-{service.name}-{run.id}" + (f"-{index}" if count > 1 else "")
            held = bool(service.max_concurrent) and index > service.max_concurrent
            draft = Task(
                name=name,
                stack=stack.name,
                service=service.name,
                container=container,
                index=index,
                desired="waiting" if held else "running",
                where=service.where,
                run=run.id,
                boot_wait_s=service.fence.boot_wait_s if service.fence else BOOT_WAIT_S,
            )
            gone = {e.task for e in made.evicted}
            there = msgspec.structs.replace(current, tasks=(*(t for t in current.tasks if t.name not in gone), *made.tasks))
            beside = msgspec.structs.replace(context, others=[t for t in context.others if t.name not in gone])
            if run.trigger in HOOKS:  # the change of their stack waits for them, and has made room for itself
                task = place_oneoff(stack, draft, there.tasks, beside)
            else:
                task, evicted = arrange_oneoff(stack, draft, there.tasks, beside)
                made.evicted += evicted
            known = list((networks | {n.name: n for n in made.networks}).values())
            task, carried = address_oneoff(task, there, known, context)
            made.tasks.append(task)
            made.networks += carried
        return made

    async def _write(self, one: Prepared, service: Service, networks: Sequence[Network], now: float) -> None:
        tasks = [t for t in one.tasks if t.name not in self._state.tasks]
        operations: list[Op] = [Put(store_keys.of_network(n), msgspec.json.encode(n)) for n in networks]
        operations += [Put(store_keys.of_task(t), msgspec.json.encode(t)) for t in tasks]
        run = msgspec.structs.replace(one.run, state="running", begun=now, reason="")
        await self._book.put(run, keep=kept(service), also=operations)
        self._state.networks.update({n.name: n for n in networks})
        self._state.tasks.update({t.name: t for t in tasks})


def key_of(run: JobRun) -> RunKey:
    """What tells *run* from all others."""
    return f"{run.stack}/{run.service}", run.id


def container_of(stack: Stack, service: Service, run: JobRun, ids: dict[str, str]) -> Container:
    """What a task of *run* runs: the service's container, under its own name, and published nowhere where it is a hook's."""
    container = service.container
    return msgspec.structs.replace(
        container,
        image_id=ids.get(container.image, ""),
        mounts=tuple(
            msgspec.structs.replace(m, image_id=ids.get(m.source, "")) if m.kind == "image" else m for m in container.mounts
        ),
        files=files_with_digests(container.files, stack.contents),
        labels=tuple(sorted({**dict(container.labels), "pystack.run": run.id}.items())),
        healthcheck=Healthcheck(test=("NONE",)) if run.trigger in HOOKS else container.healthcheck,
    )


def kept(service: Service | None) -> int:
    """How many runs of *service* that ended are remembered."""
    if service is None:
        return 0
    return service.schedule.history if service.schedule else service.job.keep
