"""The loop that gives services with `x-scale` as many replicas as their use asks for. `planning/autoscale.py` decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import msgspec

from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.planning.autoscale import ScaleMemory, decide
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import ignore
from orchestrator.server.load_figures import LoadFigures, QueryError
from orchestrator.server.records import UpOptions
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.statuses import may_serve
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.interface import Delete, Put

PERIOD_S = 15.0
"""Source: Kubernetes, --horizontal-pod-autoscaler-sync-period."""
WAKE_S = 0.5
log = logging.getLogger(__name__)


def of_autoscale(stack: str, service: str) -> str:
    """The key in the store of what is kept of a service's scaling: `autoscale/<stack>/<service>`."""
    return f"autoscale/{stack}/{service}"


class Usage(msgspec.Struct, kw_only=True):
    """What a container had used at *at* (monotonic seconds): *cpu_s* seconds of CPU, *memory* bytes."""

    at: float
    cpu_s: float
    memory: int


class Autoscaler:
    """Looks at every service with `x-scale` each *period_s*. What it decided last is kept in the store, so that any leader
    goes on with its windows and limits."""

    def __init__(self, dispatcher: Dispatcher, rollouts: RolloutManager, period_s: float = PERIOD_S) -> None:
        self._dispatcher, self._state, self._rollouts = dispatcher, dispatcher.state, rollouts
        self._period_s = period_s
        self.figures = LoadFigures()
        self.memories: dict[tuple[str, str], ScaleMemory] = {}
        self._used: dict[str, Usage] = {}

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
        for entry in await self._state.store.scan("autoscale/"):
            _, stack, service = entry.key.split("/")
            self.memories[stack, service] = msgspec.json.decode(entry.value, type=ScaleMemory)

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._turns(), name="autoscale each period")
            group.create_task(self._wakes(group), name="autoscale for requests that wait")

    async def _wakes(self, group: asyncio.TaskGroup) -> None:
        """Give a first task to services that requests wait for. Proxies say so again as long as one does."""
        while True:
            await self.figures.somebody_waits.wait()
            for name in sorted(self.figures.asked):
                stack, _, service = name.partition("/")
                group.create_task(self._wake(stack, service), name=f"wake {name}")
            await asyncio.sleep(WAKE_S)
            self.figures.asked.clear()
            self.figures.somebody_waits.clear()

    async def _wake(self, stack: str, service: str) -> None:
        record, memory = self._state.stacks.get(stack), self.memories.get((stack, service), ScaleMemory())
        one = next((s for s in record.stack.services if s.name == service), None) if record else None
        there = any(t.service == service and t.planned for t in self._state.of_stack(stack).tasks)
        if not one or not one.scale or one.scale.least or there or memory.paused:
            return
        if self._state.lock(f"stack {stack}").busy or self._rollouts.is_paused(stack):
            return
        reason = "0 → 1: a request waits at ingress"
        log.warning("%s/%s: %s", stack, service, reason)
        recommended = (*memory.recommended, (time.time(), 1))
        try:
            await self.keep(stack, service, msgspec.structs.replace(memory, recommended=recommended, reason=reason))
            await self._scale(stack, service, 1)
        except PystackError as error:
            log.warning("%s/%s is not woken: %s", stack, service, error)
        except Exception:
            log.exception("waking %s/%s", stack, service)

    async def _scale(self, stack: str, service: str, replicas: int) -> None:
        options = UpOptions(services=(service,), scale={service: replicas}, no_deps=True, wait=False, user="autoscale")
        await self._rollouts.change(lambda: (self._state.get_stack(stack).stack, options), ignore, verb="redeploy")

    async def _turns(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await self._begin_turn()
            for record in list(self._state.stacks.values()):
                for service in record.stack.services:
                    if service.scale:
                        await self._try(record.stack.name, service)
            await self._forget()

    async def _begin_turn(self) -> None:
        counted = any(
            s.scale and (s.scale.rps or (s.ingress and not s.scale.least))
            for r in self._state.stacks.values()
            for s in r.stack.services
        )
        try:
            await self.figures.begin_turn(counted)
        except PystackError as error:
            log.warning("requests are not counted: %s", error)
        except Exception:
            log.exception("counting of requests")

    async def _try(self, stack: str, service: Service) -> None:
        try:
            await self._turn(stack, service)
        except PystackError as error:
            log.warning("%s/%s is not scaled: %s", stack, service.name, error)
        except Exception:
            log.exception("scaling of %s/%s", stack, service.name)

    async def _turn(self, stack: str, service: Service) -> None:
        memory = self.memories.get((stack, service.name), ScaleMemory())
        if memory.paused or self._state.lock(f"stack {stack}").busy or self._rollouts.is_paused(stack):
            return  # a rollout changes how many there are
        if any(e.service == service.name for e in self._state.waiting_for_room(stack).values()):
            return  # there is no room for as many as there are to be
        assert service.scale
        tasks = [t for t in self._state.of_stack(stack).tasks if t.service == service.name and t.planned]
        used = await self._used_of(service, tasks)
        found = decide(service.scale, memory, time.time(), len(tasks), used, await self._totals(service, tasks))
        await self.keep(stack, service.name, found.memory)
        if found.replicas != len(tasks):
            log.warning("%s/%s: %s", stack, service.name, found.memory.reason)
            await self._scale(stack, service.name, found.replicas)

    async def _used_of(self, service: Service, tasks: Sequence[Task]) -> dict[str, list[float | None]]:
        """What each of *tasks* uses of its cores and of its memory, in percent, as far as the file has a target for it."""
        assert service.scale
        if not (service.scale.cpu or service.scale.memory):
            return {}
        known = await asyncio.gather(*(self._measure(t) for t in tasks))
        cores = service.reserves.cpus or service.container.cpus or 1.0
        memory = service.reserves.memory or service.container.memory
        out: dict[str, list[float | None]] = {}
        if service.scale.cpu:
            out["cpu"] = [None if k is None else k[0] / cores * 100 for k in known]
        if service.scale.memory and memory:
            out["memory"] = [None if k is None else k[1] / memory * 100 for k in known]
        return out

    async def _totals(self, service: Service, tasks: Sequence[Task]) -> dict[str, float | str]:
        """What there is for all of *tasks*, as far as the file has a target for it, or why nobody knows."""
        assert service.scale
        out: dict[str, float | str] = {}
        if service.scale.rps:
            out["rps"] = self.figures.rps(t.name for t in tasks)
        if query := service.scale.query:
            try:
                out["query"] = await self.figures.ask(query.promql)
            except PystackError as error:
                out["query"] = str(error)
        return out

    async def check(self, stack: Stack) -> list[str]:
        """What a `plan` has against the queries of *stack*: that nobody answers them, or could."""
        wrong = []
        for service in stack.services:
            if not (service.scale and (query := service.scale.query)):
                continue
            try:
                await self.figures.ask(query.promql)
            except QueryError as error:
                if not error.empty:
                    wrong.append(f"{query.where}: services.{service.name}.x-scale.target.query: {error}")
            except PystackError as error:
                if not self.figures.prometheus:
                    wrong.append(f"{query.where}: services.{service.name}.x-scale.target.query: {error}")
        return wrong

    async def _measure(self, task: Task) -> tuple[float, int] | None:
        """The cores that *task* has used since the last turn, and its bytes of memory; None while that is not known."""
        status = self._dispatcher.statuses.by_task.get(task.name)
        if status is None or not status.container or not may_serve(status) or self._dispatcher.unreachable_reason(task):
            return None
        client = self._dispatcher.cluster.get(task.node).client
        found = await client.call("GET", f"/containers/{status.container}/stats", params={"stream": "0", "one-shot": "1"})
        memory = found["memory_stats"]
        idle = memory.get("stats", {}).get("total_inactive_file", memory.get("stats", {}).get("inactive_file", 0))
        now = Usage(
            at=time.monotonic(),
            cpu_s=found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory=max(memory.get("usage", 0) - idle, 0),
        )
        before, self._used[status.container] = self._used.get(status.container), now
        if before is None or now.at - before.at < 1.0 or now.cpu_s < before.cpu_s:
            return None
        return (now.cpu_s - before.cpu_s) / (now.at - before.at), now.memory

    async def pause(self, stack: str, service: str, paused: bool, reason: str) -> ScaleMemory:
        """Decide nothing of *service* any more, or again. Raises RefusedError (404, 409) where it has no `x-scale`."""
        if self._state.get_service(stack, service).scale is None:
            raise RefusedError(f"service {service} of stack {stack} has no x-scale", 409)
        memory = ScaleMemory(paused=paused, reason=reason)
        await self.keep(stack, service, memory)
        return memory

    async def keep(self, stack: str, service: str, memory: ScaleMemory) -> None:
        """Write what is to be known at the next turn."""
        if self.memories.get((stack, service)) != memory:
            await self._state.transact([Put(of_autoscale(stack, service), msgspec.json.encode(memory))])
            self.memories[stack, service] = memory

    async def _forget(self) -> None:
        """Drop what is kept of services that are not there, and of containers that ended."""
        there = {(r.stack.name, s.name) for r in self._state.stacks.values() for s in r.stack.services if s.scale}
        for stack, service in self.memories.keys() - there:
            await self._state.transact([Delete(of_autoscale(stack, service))])
            del self.memories[stack, service]
        alive = {s.container for s in self._dispatcher.statuses.by_task.values()}
        for container in self._used.keys() - alive:
            del self._used[container]
