"""The controller: what the cluster should be lives in the store, and each node is kept equal to its part of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec

from agent.manifest import Manifest, Network, Subnet, Task, TaskStatus, Volume
from orchestrator.couriers.courier import Courier
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.context import PlacementContext, service_requests
from orchestrator.placement.explain import Why, explain
from orchestrator.placement.request import PlacementRequest
from orchestrator.planning.diff import plan as make_plan
from orchestrator.planning.expand import expand
from orchestrator.planning.manifests import ingress_ports, manifest_of
from orchestrator.planning.state import Plan, State
from orchestrator.server import keys, moving, rescue, revisions
from orchestrator.server.cluster import Cluster
from orchestrator.server.contents import Contents
from orchestrator.server.exchange import Exchange
from orchestrator.server.images import Images
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.server.rollout import Failure, Rollout
from orchestrator.server.statuses import Statuses, may_serve, serves
from orchestrator.stackfile.graph import needed
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Compare, Delete, Op, Put, Store, StoreError, batches

Event = dict[str, Any]


log = logging.getLogger(__name__)


class Controller:
    def __init__(
        self, store: Store, node: str, socket: Path, run: Path, keys: Path, advertise: str = "",
        reschedule_after_s: float | None = None,
    ) -> None:
        self.store = store
        self.cluster = Cluster(store, node, socket, run, self.manifest, self._heard, advertise)
        self.contents = Contents(store, keys, node)
        self.images = Images(self.cluster)
        self.statuses = Statuses()
        self.stacks: dict[str, StackRecord] = {}
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Network] = {}
        self.volumes: dict[str, Volume] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.resting: set[str] = set()
        """Tasks that no new connection is sent to, for they are about to end or to be exchanged."""
        self._telling: set[str] = set()
        self._teller: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._rescue: asyncio.Task[None] | None = None
        self._reschedule_after_s = reschedule_after_s
        self._revision = 0
        self.known_once = False
        """All of the store was read: what is remembered is whole."""

    @property
    def node(self) -> str:
        """The node that the server itself runs on."""
        return self.cluster.local

    @property
    def courier(self) -> Courier:
        return self.cluster.members[self.node].courier

    async def start(self) -> None:
        """Read the store, and take up the nodes."""
        for entry in await self.store.scan("stacks/"):
            record = msgspec.json.decode(entry.value, type=StackRecord)
            self.stacks[record.stack.name] = record
        for entry in await self.store.scan("tasks/"):
            task = msgspec.json.decode(entry.value, type=Task)
            self.tasks[task.name] = task
        for entry in await self.store.scan("networks/"):
            network = msgspec.json.decode(entry.value, type=Network)
            self.networks[network.name] = network
        for entry in await self.store.scan("volumes/"):
            volume = msgspec.json.decode(entry.value, type=Volume)
            self.volumes[volume.name] = volume
        await self.contents.start()
        await self._sweep_contents()
        self._revision = await self.store.revision()
        # gates that a killed server left closed are opened again by nobody: those tasks wait for the next `up`
        await self.cluster.start()
        self.known_once = True
        self._recovery = asyncio.create_task(moving.recover(self))
        if self._reschedule_after_s is not None:
            self._rescue = asyncio.create_task(rescue.watch(self, self._reschedule_after_s), name="rescue")

    async def _sweep_contents(self) -> None:
        if self.contents.empty:
            return
        records = [msgspec.json.decode(e.value, type=StackRecord) for e in await self.store.scan("history/")]
        used = {c.digest for r in (*records, *self.stacks.values()) for c in r.stack.contents}
        try:
            await self.contents.sweep(used | {f.digest for t in self.tasks.values() for f in t.container.files})
        except StoreError as error:  # a full disk: what nobody uses can wait, the cluster cannot
            log.warning("what no stack uses any more is still kept: %s", error)

    def _heard(self, node: str, status: TaskStatus) -> None:
        if status.task in self.tasks and self.tasks[status.task].node != node:
            return  # of a node that was silent and does not know yet that its task is another's
        before = self.statuses.by_task.get(status.task)
        self.statuses.update(node, status)
        was = (may_serve(before), serves(before)) if before else (False, False)
        if was != (may_serve(status), serves(status)) and status.task in self.tasks:
            self._tell_peers(self.tasks[status.task])

    def _tell_peers(self, task: Task) -> None:
        """A task began or ceased to serve: the nodes that send connections to it must know."""
        around = {h.name for a in task.container.attachments if a.network in self.networks
                  for h in self.networks[a.network].hosts}
        nodes = around or {task.node}
        if not task.container.attachments or (len(self.cluster.members) < 2 and not ingress_ports(task)):
            return
        self._telling |= nodes
        if self._teller is None or self._teller.done():
            self._teller = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while self._telling:
            nodes, self._telling = self._telling, set()
            with contextlib.suppress(PystackError):
                await self.cluster.deliver(nodes)

    # --- delivering --------------------------------------------------------------------------------------------

    def manifest(self, node: str) -> Manifest:
        """All that *node* must be."""
        statuses = self.statuses.by_task
        running = {name for name, status in statuses.items() if may_serve(status)} - self.resting
        manifest = manifest_of(
            node, [m.node for m in self.cluster.members.values()], self._revision, self.networks, self.volumes,
            self.tasks.values(), {name for name in running if serves(statuses[name])}, running,
        )
        files = {f.digest: f for t in self.tasks.values() if t.node == node for f in t.container.files}
        key = self.cluster.members[node].node.facts.seal_key
        contents = (self.contents.sent(f, key) for f in files.values())
        return msgspec.structs.replace(manifest, contents=tuple(c for c in contents if c)) if files else manifest

    async def transact(self, operations: Sequence[Op], compare: Sequence[Compare] = ()) -> None:
        """Write *operations*, in as few revisions as the store allows. Raises RefusedError where a comparison does not hold."""
        for batch in batches(operations):
            outcome = await self.store.transact(compare, batch)
            self._revision = outcome.revision
            if not outcome.succeeded:
                raise RefusedError("the state moved while this was planned: try again", 409)
            compare = ()

    async def write_tasks(self, tasks: Sequence[Task]) -> None:
        operations: list[Op] = [Put(keys.of_task(t), msgspec.json.encode(t)) for t in tasks]
        await self.transact(operations)
        self.tasks.update({t.name: t for t in tasks})
        await self.cluster.deliver()

    async def remove_tasks(self, names: Sequence[str]) -> None:
        await self.transact([Delete(keys.of_task(self.tasks[n])) for n in names if n in self.tasks])
        for name in names:
            self.tasks.pop(name, None)
        self.resting -= set(names)
        await self.cluster.deliver()

    # --- looking -----------------------------------------------------------------------------------------------

    def state(self, stack: str) -> State:
        return State(
            networks=tuple(n for n in self.networks.values() if n.stack == stack),
            volumes=tuple(v for v in self.volumes.values() if v.stack == stack),
            tasks=tuple(t for t in self.tasks.values() if t.stack == stack),
            contents=self.stacks[stack].stack.contents if stack in self.stacks else (),
        )

    def known(self, stack: str) -> StackRecord:
        if stack not in self.stacks:
            raise RefusedError(f"there is no stack {stack}: `pystack ls` lists them, `pystack up` makes one", 404)
        return self.stacks[stack]

    async def _foreign_networks(self, stack: str) -> list[Network]:
        """Networks of other stacks, and those made on the node by hand."""
        out = {n.name: n for n in self.networks.values() if n.stack != stack}
        for found in await self.courier.call("GET", "/networks"):
            if found["Name"] not in self.networks and found.get("IPAM", {}).get("Config"):
                pools = found["IPAM"]["Config"]
                subnets = tuple(Subnet(cidr=p["Subnet"], gateway=p.get("Gateway", "")) for p in pools)
                out[found["Name"]] = Network(name=found["Name"], subnets=subnets)
        return list(out.values())

    def ground(self, stack: str) -> PlacementContext:
        """What the placement of *stack* looks at besides the stack itself."""
        nodes = tuple(m.node for _, m in sorted(self.cluster.members.items()))
        empty = PlacementContext(nodes=nodes, ready=self.cluster.ready, local=self.node)
        known: dict[str, PlacementRequest] = {}
        for name, record in self.stacks.items():
            if name != stack:
                known |= service_requests(record.stack, empty)
        return msgspec.structs.replace(
            empty, others=tuple(t for t in self.tasks.values() if t.stack != stack), requests=known,
            homes={v.name: v.node for v in self.volumes.values() if v.node in self.cluster.members and not v.shared},
        )

    def reserved(self, tasks: Sequence[Task]) -> tuple[float, int]:
        """Cores and bytes that *tasks* reserve."""
        services = {(n, s.name): s.reserves for n, r in self.stacks.items() for s in r.stack.services}
        asked = [r for t in tasks if (r := services.get((t.stack, t.service)))]
        return sum(r.cpus for r in asked), sum(r.memory for r in asked)

    def why(self, stack: str, service: str, task: str) -> Why:
        """Every node's verdict on a task of *stack*, or on one more of *service* where *task* is not there."""
        known = self.known(stack).stack
        if service not in {s.name for s in known.services}:
            raise RefusedError(f"stack {stack} has no service {service}", 404)
        return explain(known, service, task, self.state(stack).tasks, self.ground(stack))

    async def plan(self, stack: Stack, options: UpOptions) -> Plan:
        """What `up` would do. Reads only: nothing in here can write."""
        stack = self.contents.settled(stack)
        if any(n.parent for n in stack.networks):
            await self.cluster.look()
        current = self.state(stack.name)
        chosen = frozenset(options.services)
        if unknown := chosen - {s.name for s in stack.services}:
            raise RefusedError(f"no such service: {', '.join(sorted(unknown))}", 404)
        wanted = _wanted(stack, options)
        desired = await self.desired(stack, options)
        force = frozenset(s.name for s in stack.services if options.force_recreate and (not chosen or s.name in chosen))
        return make_plan(
            stack, desired, current, revision=self._revision, statuses=self.statuses.by_task,
            remove_orphans=options.remove_orphans, force=force, only=wanted, starting=not options.no_start,
        )

    async def desired(self, stack: Stack, options: UpOptions) -> State:
        return expand(
            stack, self.state(stack.name), others=await self._foreign_networks(stack.name), images=await self.images.ids(stack),
            only=_wanted(stack, options), scale=options.scale, volumes_there=await self._volume_names(stack),
            context=msgspec.structs.replace(self.ground(stack.name), moves=options.moves),
        )

    async def _volume_names(self, stack: Stack) -> list[str]:
        """Volumes of the node; not asked for where the stack has no external one."""
        if not any(v.external for v in stack.volumes):
            return []
        return [v["Name"] for v in (await self.courier.call("GET", "/volumes"))["Volumes"]]

    # --- doing -------------------------------------------------------------------------------------------------

    def lock(self, stack: str) -> asyncio.Lock:
        return self._locks.setdefault(stack, asyncio.Lock())

    async def up(self, stack: Stack, options: UpOptions, tell: Any) -> list[Failure]:
        """Make *stack* true; *tell* hears each event. Returns what failed."""
        async with self.lock(stack.name):
            failures = await self.images.pull(stack, _wanted(stack, options), options.pull, tell)
            if failures:
                return failures
            plan = await self.plan(stack, options)
            if options.no_tasks:
                plan = plan.without_tasks(self.state(stack.name))
            await self.contents.keep(stack.contents)
            for warning in plan.warnings:
                tell({"event": "warning", "message": warning})
            for step in plan.changes:
                tell({"event": "step", **msgspec.to_builtins(step)})
            return await self.carry_out(self.contents.settled(stack), plan, options, tell)

    async def carry_out(self, stack: Stack, plan: Plan, options: UpOptions, tell: Any) -> list[Failure]:
        before = self.stacks[stack.name].stack if stack.name in self.stacks else stack
        await self.cluster.ask_keys_for(plan.desired.tasks, plan.desired.networks)
        changed = {s.name for s in plan.changes if s.kind == "task"}
        if failures := await self.images.ship([t for t in plan.desired.tasks if t.name in changed], tell):
            return failures
        rolling = {} if options.no_start else self._rolling(stack, plan)
        at_once = {name for tasks in rolling.values() for name in tasks}
        removed = [s.name for s in plan.steps if s.action == "remove" and s.kind == "task"]
        moved = [
            t.name for t in plan.desired.tasks
            if t.name in self.tasks and t.name not in at_once and self.tasks[t.name].node != t.node
        ]
        if leaving := [*removed, *moved]:
            await self.rest(leaving)
            await self.remove_tasks(leaving)
            await self.gone(leaving)
        rollout = Rollout(
            stack.services,
            [t for t in plan.desired.tasks if t.service in {s.name for s in stack.services} and t.desired != "guest"],
            self.statuses, lambda tasks: asyncio.ensure_future(self.write_tasks(tasks)),
            want="up" if options.wait else "begun" if options.attached else "", timeout_s=options.timeout_s, lost=self.lost,
            hands=Exchange(self, stack, options, plan, tell),
        )
        tasks = []
        for task in plan.desired.tasks:
            if task.desired == "guest":
                continue
            if task.name in at_once:
                tasks.append(task)
            elif task.name in changed:
                hold = options.no_start or (not options.no_deps and rollout.gated(task.service))
                tasks.append(msgspec.structs.replace(
                    task, desired="hold" if hold else "running", renew=options.renew_volumes
                ))
            else:
                tasks.append(self.tasks.get(task.name, task))
        rollout.tasks = {}
        for task in tasks:
            rollout.tasks.setdefault(task.service, []).append(task)
        rollout.rolling = rolling
        await self._write_plan(
            stack, plan, [t for t in tasks if t.name not in at_once and self.tasks.get(t.name) != t], options
        )
        names = {t.name for t in tasks}

        def hear(status: TaskStatus) -> None:
            if status.task in names:
                tell({"event": "task", **msgspec.to_builtins(status)})

        self.statuses.listeners.add(hear)
        try:
            failures = [] if options.no_start or options.no_tasks else await rollout.run()
        finally:
            self.statuses.listeners.discard(hear)
        if rollout.reverted:
            await self._note_reverted(stack, rollout.reverted, before, options)
        return [await self.with_log(f) for f in failures]

    def _rolling(self, stack: Stack, plan: Plan) -> dict[str, dict[str, Task]]:
        """Tasks that are there and are exchanged by and by: service → name → the task as it is."""
        paced = {s.name for s in stack.services if s.update}
        replaced = {s.name for s in plan.steps if s.kind == "task" and s.action == "replace"}
        out: dict[str, dict[str, Task]] = {}
        for task in plan.desired.tasks:
            if task.service in paced and task.name in replaced and self.tasks[task.name].desired == "running":
                out.setdefault(task.service, {})[task.name] = self.tasks[task.name]
        return out

    async def _note_reverted(self, stack: Stack, services: Set[str], before: Stack, options: UpOptions) -> None:
        """From now on the stack is the one from before where *services* are concerned."""
        old = {s.name: s for s in before.services if s.name in services}
        known = {(c.kind, c.name) for c in stack.contents}
        merged = msgspec.structs.replace(
            stack, services=tuple(old.get(s.name, s) for s in stack.services),
            contents=(*stack.contents, *(c for c in before.contents if (c.kind, c.name) not in known)),
        )
        message = f"the update of {', '.join(sorted(services))} failed and was taken back"
        record, operations = await revisions.next_of(self, merged, msgspec.structs.replace(options, message=message))
        await self.transact(operations)
        self.stacks[stack.name] = record

    async def rest(self, names: Iterable[str]) -> None:
        """No new connection is sent to these tasks, which are about to end."""
        self.resting |= set(names)
        await self.cluster.deliver()

    async def _write_plan(self, stack: Stack, plan: Plan, tasks: Sequence[Task], options: UpOptions) -> None:
        """Everything of the plan in as few revisions as the store allows; nothing where nothing changed."""
        operations: list[Op] = []
        gone = [s.name for s in plan.steps if s.action == "remove" and s.kind == "network"]
        for network in plan.desired.networks:
            if self.networks.get(network.name) != network:
                operations.append(Put(keys.of_network(network), msgspec.json.encode(network)))
        for volume in plan.desired.volumes:
            if self.volumes.get(volume.name) != volume:
                operations.append(Put(f"volumes/{volume.name}", msgspec.json.encode(volume)))
        operations += [Put(keys.of_task(t), msgspec.json.encode(t)) for t in tasks]
        operations += [Delete(keys.of_network(name)) for name in gone]
        old = self.stacks.get(stack.name)
        if not operations and old and old.stack == stack:
            return
        record, revision = await revisions.next_of(self, stack, options)
        await self.transact([*revision, *operations])
        self.stacks[stack.name] = record
        self.networks.update({n.name: n for n in plan.desired.networks})
        self.volumes.update({v.name: v for v in plan.desired.volumes})
        self.tasks.update({t.name: t for t in tasks})
        for name in gone:
            self.networks.pop(name, None)
        await self.cluster.deliver()

    async def with_log(self, failure: Failure) -> Failure:
        status = self.statuses.by_task.get(failure.task)
        if status is None or not status.container:
            return failure
        courier = self.cluster.get(self.statuses.nodes.get(failure.task, self.node)).courier
        return msgspec.structs.replace(failure, log=tuple(await courier.tail(status.container, 10)))

    def lost(self, task: Task) -> str:
        return self.cluster.silent(task.node)

    async def gone(self, names: Sequence[str]) -> None:
        """Wait until the nodes have taken *names* away; one that does not answer does so when it is back."""
        def answer() -> bool | None:
            self.statuses.forget({n for n in names if self.statuses.nodes.get(n, self.node) not in self.cluster.ready})
            return True if all(n not in self.statuses.by_task for n in names) else None

        await self.statuses.until(answer)

    async def close(self) -> None:
        for task in (self._teller, self._recovery, self._rescue):
            if task:
                task.cancel()
        await self.cluster.close()
        await self.store.close()


def _wanted(stack: Stack, options: UpOptions) -> frozenset[str] | None:
    """The services that something is to be done for: those named, and what they need; None is all of them."""
    named = frozenset(options.services)
    return None if not named else named if options.no_deps else frozenset(needed(stack.services, named))


async def events(controller: Controller) -> AsyncIterator[Event]:
    """Every change of a task's status, as it comes."""
    queue: asyncio.Queue[TaskStatus] = asyncio.Queue(4096)

    def hear(status: TaskStatus) -> None:
        if not queue.full():
            queue.put_nowait(status)

    controller.statuses.listeners.add(hear)
    try:
        while True:
            status = await queue.get()
            task = controller.tasks.get(status.task)
            whose = {"stack": task.stack, "service": task.service, "node": task.node} if task else {}
            yield {**msgspec.to_builtins(status), **whose}
    finally:
        controller.statuses.listeners.discard(hear)
