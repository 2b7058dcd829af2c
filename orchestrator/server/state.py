"""The desired state of the cluster: the store's stacks, tasks, networks and volumes in memory, and what changes both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.times import timestamp
from agent.contract.volume import Volume
from orchestrator.errors import RefusedError, require_services
from orchestrator.placement.eviction import Eviction
from orchestrator.planning.state import State
from orchestrator.server import store_keys
from orchestrator.server.locks import ChangeLock
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.interface import Compare, Delete, Op, Put, Store, batches

HISTORY = 100
"""How many revisions of a stack are kept."""


class Coming(NamedTuple):
    """What a change of *stack* is about to write: *tasks* with their nodes, *networks* with their subnets."""

    stack: Stack
    tasks: tuple[Task, ...]
    networks: tuple[Network, ...]


class ClusterState:
    """A copy of what *store* holds of stacks. Only the server that leads writes it, so the copy stays true."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.stacks: dict[str, StackRecord] = {}
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Network] = {}
        self.volumes: dict[str, Volume] = {}
        self.preempted: dict[str, Eviction] = {}
        """The tasks that had to make room for others of a higher priority, by name, until they are back."""
        self.coming: list[Coming] = []
        """Of stacks that are being changed, what has its place and is not written yet."""
        self.moving: set[str] = set()
        """Names of tasks that are being written to another node: no node gets them meanwhile."""
        self.held: dict[str, str] = {}
        """Of deleted tasks that must not run twice, the nodes that may still run them: who deleted them may be gone."""
        self.draining: set[str] = set()
        """Names of tasks that get no new connections, because they will be stopped or replaced."""
        self.revision = 0
        """The store's revision after the last read or write."""
        self._locks: dict[str, ChangeLock] = {}
        self._allocations: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        """Read everything from the store. Raises StoreError."""
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
        for entry in await self.store.scan("preempted/"):
            eviction = msgspec.json.decode(entry.value, type=Eviction)
            self.preempted[eviction.task] = eviction
        for entry in await self.store.scan(store_keys.HELD):
            self.held[entry.key.removeprefix(store_keys.HELD)] = msgspec.json.decode(entry.value, type=str)
        self.revision = await self.store.revision()

    # --- reading -----------------------------------------------------------------------------------------------

    def of_stack(self, stack: str) -> State:
        """The networks, volumes, tasks and contents of *stack*; empty if there is no such stack."""
        return State(
            networks=tuple(n for n in self.networks.values() if n.stack == stack),
            volumes=tuple(v for v in self.volumes.values() if v.stack == stack),
            tasks=tuple(t for t in self.tasks.values() if t.stack == stack),
            contents=self.stacks[stack].stack.contents if stack in self.stacks else (),
        )

    def networks_beside(self, stack: str) -> tuple[Network, ...]:
        """The networks of all stacks but *stack*."""
        return tuple(n for n in self.networks.values() if n.stack != stack)

    def networks_to_come(self, stack: str) -> tuple[Network, ...]:
        """The networks that changes of all stacks but *stack* are about to make."""
        return tuple(n for one in self.coming for n in one.networks if n.stack != stack and n.name not in self.networks)

    def get_stack(self, stack: str) -> StackRecord:
        """Raises RefusedError (404) if there is no such stack."""
        if stack not in self.stacks:
            raise RefusedError(f"there is no stack {stack}: `pystack ls` lists them, `pystack up` makes one", 404)
        return self.stacks[stack]

    def get_service(self, stack: str, service: str) -> Service:
        """Raises RefusedError (404) if there is no such stack or service."""
        services = {s.name: s for s in self.get_stack(stack).stack.services}
        require_services([service], stack, services)
        return services[service]

    def waiting_for_room(self, stack: str) -> dict[str, Eviction]:
        """The tasks of *stack* that had to go for others and are not back, by name."""
        return {n: e for n, e in self.preempted.items() if e.stack == stack and n not in self.tasks}

    def settled(self, stack: str, desired: State) -> list[str]:
        """The tasks of *stack* that had to go once, and in *desired* are there again, or are not wanted any more."""
        waiting = {e.task for e in (*desired.pending, *desired.evicted)}
        return [n for n, e in self.preempted.items() if e.stack == stack and n not in waiting]

    @contextmanager
    def expected(self, stack: Stack, tasks: Sequence[Task], networks: Sequence[Network] = ()) -> Iterator[None]:
        """Meanwhile *tasks* count as being on their nodes when tasks of other stacks are placed, and *networks* have their
        addresses."""
        mine = Coming(stack, tuple(tasks), tuple(networks))
        self.coming.append(mine)
        try:
            yield
        finally:
            self.coming = [one for one in self.coming if one is not mine]

    @contextmanager
    def on_their_way(self, names: Set[str]) -> Iterator[None]:
        """Meanwhile no manifest has the tasks *names*: their node may come back while they are written to another."""
        self.moving |= names
        try:
            yield
        finally:
            self.moving -= names

    def lock(self, what: str) -> ChangeLock:
        """The lock that a change of *what* holds: `stack NAME`, or `volume NAME`."""
        return self._locks.setdefault(what, ChangeLock(what))

    def allocation(self, stack: str) -> asyncio.Lock:
        """Held from the choice of nodes and addresses for tasks of *stack* until they are written. It is short where the lock
        of the whole change is long: runs of jobs begin while an `up` waits."""
        return self._allocations.setdefault(stack, asyncio.Lock())

    async def history(self, stack: str) -> list[StackRecord]:
        """Every kept revision of *stack*, the oldest first. A stack that is down still has its history."""
        entries = await self.store.scan(f"history/{stack}/")
        return [msgspec.json.decode(e.value, type=StackRecord) for e in entries]

    # --- writing -----------------------------------------------------------------------------------------------

    async def transact(self, operations: Sequence[Op], compare: Sequence[Compare] = ()) -> None:
        """Write *operations* in as few revisions as the store allows. Does not change the copy in memory.

        Raises RefusedError (409) if a comparison does not hold."""
        for batch in batches(operations):
            outcome = await self.store.transact(compare, batch)
            self.revision = outcome.revision
            if not outcome.succeeded:
                raise RefusedError("the state moved while this was planned: try again", 409)
            compare = ()

    async def put(self, *, tasks: Sequence[Task] = (), networks: Sequence[Network] = ()) -> None:
        """Write *tasks* and *networks* to the store, then to the copy. The key of a task names its node: a move changes it."""
        moved = [t for t in tasks if t.name in self.tasks and self.tasks[t.name].node != t.node]
        pairs = {t.name for t in moved}
        # the two operations of one moved task stay in one transaction, however many there are: they come first, in pairs
        operations: list[Op] = [
            op
            for t in moved
            for op in (Delete(store_keys.of_task(self.tasks[t.name])), Put(store_keys.of_task(t), msgspec.json.encode(t)))
        ]
        operations += [Put(store_keys.of_network(n), msgspec.json.encode(n)) for n in networks]
        operations += [Put(store_keys.of_task(t), msgspec.json.encode(t)) for t in tasks if t.name not in pairs]
        await self.transact(operations)
        self.networks.update({n.name: n for n in networks})
        self.tasks.update({t.name: t for t in tasks})

    async def delete_tasks(self, names: Sequence[str]) -> None:
        """Delete tasks from the store and from the copy. Names that are not there are skipped."""
        gone = [self.tasks[n] for n in names if n in self.tasks]
        held = {t.name: t.node for t in gone if t.strict}
        operations: list[Op] = [Put(store_keys.of_held(name), msgspec.json.encode(node)) for name, node in held.items()]
        await self.transact([*operations, *(Delete(store_keys.of_task(t)) for t in gone)])
        self.held |= held
        for name in names:
            self.tasks.pop(name, None)
        self.draining -= set(names)

    async def release(self, names: Iterable[str]) -> None:
        """No node runs these deleted tasks any more."""
        if known := [name for name in names if name in self.held]:
            await self.transact([Delete(store_keys.of_held(name)) for name in known])
            for name in known:
                self.held.pop(name, None)

    async def next_revision(self, stack: Stack, options: UpOptions) -> tuple[StackRecord, list[Op]]:
        """*stack* as its next revision, and the operations that write it. Writes nothing itself."""
        old = self.stacks.get(stack.name)
        last = old.revision if old else max((r.revision for r in await self.history(stack.name)), default=0)
        record = StackRecord(
            stack=stack,
            revision=last + 1,
            user=options.user,
            message=options.message,
            source=options.source,
            updated=timestamp(digits="seconds"),
        )
        raw = msgspec.json.encode(record)
        operations: list[Op] = [
            Put(store_keys.of_stack(stack.name), raw),
            Put(store_keys.of_revision(stack.name, record.revision), raw),
        ]
        if record.revision > HISTORY:
            operations.append(Delete(store_keys.of_revision(stack.name, record.revision - HISTORY)))
        return record, operations
