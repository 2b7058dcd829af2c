"""Gives the tasks of runs nodes and addresses, and writes them together with their runs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.contract.container import Container, Healthcheck
from agent.contract.network import Network
from agent.contract.task import BOOT_WAIT_S, Task
from orchestrator.errors import PystackError
from orchestrator.placement.assign import place_oneoff
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
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.trust import TrustCheck
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.interface import Op, Put


class Prepared(msgspec.Struct, kw_only=True):
    """What a run needs to begin: its *tasks*, and the *networks* that their nodes carry because of them."""

    run: JobRun
    tasks: list[Task]
    networks: list[Network]


class RunStarter:
    """Begins runs. All of it may be cut off and done again: the names of a run's tasks follow from the run."""

    def __init__(self, dispatcher: Dispatcher, images: Images, inputs: Inputs, book: RunBook) -> None:
        self._dispatcher, self._state = dispatcher, dispatcher.state
        self._images, self._inputs, self._book = images, inputs, book
        self._trust = TrustCheck(dispatcher.cluster, images)

    async def begin(self, stack: Stack, runs: Sequence[JobRun], now: float) -> dict[str, str]:
        """Give *runs*, which are pending, their tasks. Returns those that could not begin, by ID, with the reason."""
        failed: dict[str, str] = {}
        services = {s.name: s for s in stack.services}
        await self._bring(stack, {r.service for r in runs})
        async with self._state.allocation(stack.name):
            ids = await self._images.ids(stack)
            current, networks = self._state.of_stack(stack.name), dict(self._state.networks)
            begun: list[Prepared] = []
            for run in runs:
                try:
                    trust = (await self._trust.trusted(stack, {run.service})).get(run.service)
                    made = self._place(stack, services[run.service], run, current, networks, ids)
                except PystackError as error:
                    failed[run.id] = str(error)
                    continue
                made.tasks = [msgspec.structs.replace(t, trust=trust) for t in made.tasks]
                current = msgspec.structs.replace(current, tasks=(*current.tasks, *made.tasks))
                networks |= {n.name: n for n in made.networks}
                begun.append(made)
            tasks = [t for one in begun for t in one.tasks]
            wide = {n.name: networks[n.name] for one in begun for n in one.networks}
            for failure in await prepare_nodes(self._dispatcher.cluster, self._images, tasks, list(wide.values()), ignore):
                failed |= {one.run.id: failure.reason for one in begun if any(t.name == failure.task for t in one.tasks)}
            begun = [one for one in begun if one.run.id not in failed]
            for one in begun:
                await self._write(one, services[one.run.service], [wide[n.name] for n in one.networks], now)
        if begun:
            await self._dispatcher.cluster.deliver()
        return failed

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
        self._inputs.quotas.require_one_more(stack, service.name)
        count = service.replicas if run.trigger in ("schedule", "hand") else 1
        made = Prepared(run=run, tasks=[], networks=[])
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
            there = msgspec.structs.replace(current, tasks=(*current.tasks, *made.tasks))
            task = place_oneoff(stack, draft, there.tasks, context)
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
