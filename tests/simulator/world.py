"""The simulated cluster as a whole: nodes, a network with faults, servers that are elected, and what must always hold."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from agent.contract.manifest import Delta, Farewell, Manifest
from agent.contract.status import TaskStatus
from orchestrator.errors import UnreachableError
from orchestrator.placement.node import Node
from orchestrator.server.leader_watch import FRESH_S
from orchestrator.server.plane import ControlPlane
from orchestrator.store.interface import StoreError
from orchestrator.transport.agent_client import HEARTBEAT_S, SILENT_S
from orchestrator.transport.uplink import Links
from tests.simulator.clock import VirtualLoop
from tests.simulator.node import INFO, Container, SimNode
from tests.simulator.storage import LEASE_S, SUCCEED_S, Backing, TermStore

OWNER: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="world")
"""Whose a task of the loop is: a node's, or a leader's; it ends with its owner."""
SERVER: contextvars.ContextVar[str] = contextvars.ContextVar("server", default="")
"""The node of the server that the task works for."""


class ViolationError(Exception):
    """Something does not hold that always must."""


class World:
    """Nodes n1 … n*nodes*, of which the first three have servers."""

    def __init__(self, loop: VirtualLoop, seed: int, folder: Path, nodes: int = 5) -> None:
        self.loop, self.rng, self.folder = loop, random.Random(seed), folder
        self.history: list[str] = []
        self.violations: list[str] = []
        self._owned: dict[str, dict[asyncio.Task[Any], None]] = {}
        loop.set_task_factory(self._new_task)
        self.nodes = {f"n{n}": SimNode(self, f"n{n}", folder) for n in range(1, nodes + 1)}
        self.servers = list(self.nodes)[:3]
        self.backing = Backing()
        self.cut_store: set[str] = set()
        """Servers that do not reach the store."""
        self.groups: dict[str, int] = {}
        """The side of a partition that a node is on; nodes of different sides do not reach each other."""
        self.one_way: set[tuple[str, str]] = set()
        """(from, to) pairs on which nothing arrives."""
        self.slow: set[str] = set()
        """Nodes whose messages take seconds."""
        self.added: set[str] = set()
        """Nodes that were members once: one that was removed is not added again."""
        self.leading: dict[str, ControlPlane] = {}
        self.messages, self.sent = 0, 0
        """What servers have asked of nodes, and the bytes of the manifests and changes among it."""
        self.nodes_cpu = 0.0
        """Seconds of processor time that nodes spent on it."""

    # --- tasks of the loop -------------------------------------------------------------------------------------

    def _new_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **options)
        mine = self._owned.setdefault(OWNER.get(), {})
        mine[task] = None
        task.add_done_callback(lambda done: mine.pop(done, None))
        return task

    def spawn(self, owner: str, work: Any, name: str, server: str = "") -> asyncio.Task[Any]:
        """Run *work* as *owner*'s."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        if server:
            context.run(SERVER.set, server)
        return context.run(self.loop.create_task, work, name=name)

    def kill(self, owner: str) -> None:
        """End all tasks of *owner*, as a power cut does."""
        for task in list(self._owned.get(owner, ())):
            task.cancel()

    def note(self, text: str) -> None:
        """Remember what happened."""
        self.history.append(f"{self.loop.time():9.3f} {text}")

    # --- the network -------------------------------------------------------------------------------------------

    def reaches(self, one: str, other: str) -> bool:
        """Whether a message of *one* arrives at *other*."""
        both = self.nodes[one].up and self.nodes[other].up
        return both and self.groups.get(one, 0) == self.groups.get(other, 0) and (one, other) not in self.one_way

    async def hop(self, one: str, other: str) -> None:
        """The way of one message. Raises UnreachableError where it does not arrive."""
        if one == other:
            return await asyncio.sleep(0)
        await asyncio.sleep(self.rng.expovariate(100) + (self.rng.uniform(0.5, 3) if {one, other} & self.slow else 0))
        if not self.reaches(one, other):
            await asyncio.sleep(self.rng.uniform(0, SILENT_S))
            raise UnreachableError(f"node {other} does not answer")

    # --- servers -----------------------------------------------------------------------------------------------

    async def serve(self, name: str) -> None:
        """What a server of node *name* does: wait until it may lead, lead, and wait again."""
        backing = self.backing
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 0.6))
            left, last = backing.lease_ends - self.loop.time(), backing.leader
            succeeds = left <= LEASE_S - SUCCEED_S and last != name and not (last and self.reaches(last, name))
            if name in self.cut_store or (left > 0 and not succeeds):
                continue
            words = {last: backing.lease_ends - LEASE_S} if last and left > LEASE_S - FRESH_S else {}
            backing.term, backing.leader = backing.term + 1, name
            backing.lease_ends = self.loop.time() + LEASE_S
            await self._lead(name, backing.term, words)

    async def _lead(self, name: str, term: int, last_word: Mapping[str, float]) -> None:
        store = TermStore(self.backing, term, self.rng, name, self.cut_store)
        keeper = asyncio.create_task(store.keep(), name="lease of the leader")
        plane = ControlPlane(store, name, Path(name), self.folder, self.folder / name, advertise="sim", reschedule_after_s=8.0)
        plane.cluster.last_word = last_word
        self.note(f"{name} leads, term {term}")
        try:
            await plane.start()
            for node in self.nodes:
                if node not in plane.cluster.members and node not in self.added:
                    self.added.add(node)
                    member = plane.cluster.connect(sim_node(node))
                    await plane.cluster.save(member.node)
            self.leading[name] = plane
            await store.lost.wait()
            plane.cluster.resign()
            self.note(f"{name} does not lead any more")
        except (StoreError, TimeoutError) as error:
            self.note(f"{name} cannot lead: {error}")
        finally:
            keeper.cancel()
            self.leading.pop(name, None)
            await plane.close()

    def power_on(self, name: str) -> None:
        """Boot a node, with its server if it has one."""
        self.note(f"boot {name}")
        self.nodes[name].boot()
        if name in self.servers:
            self.spawn(f"server {name}", self.serve(name), f"server {name}", server=name)

    def power_off(self, name: str) -> None:
        """Cut a node's power."""
        self.note(f"crash {name}")
        self.kill(f"server {name}")
        self.leading.pop(name, None)
        self.nodes[name].crash()

    # --- what must always hold ---------------------------------------------------------------------------------

    def began(self, node: str, container: Container) -> None:
        """A container began to run."""
        task = container.task
        self.note(f"{node} runs {task.name} ({task.container.image})")
        if not task.strict:
            return
        for other in self.nodes.values():
            twin = other.containers.get(task.name)
            if other.up and other.name != node and twin and twin.state == "running":
                self.violate(f"strict task {task.name} runs on {other.name} and on {node}")

    def violate(self, text: str) -> None:
        """Note a violation."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)

    def unsettled(self) -> str:
        """Why the cluster is not what its store says, "" if it is."""
        planes = [p for p in self.leading.values() if p.loaded]
        if len(planes) != 1:
            return f"{len(planes)} servers lead"
        state = planes[0].state
        for name, task in sorted(state.tasks.items()):
            found = self.nodes[task.node].containers.get(name)
            if found is None or found.task.container != task.container:
                return f"{task.node} does not have {name} as it is wanted"
            if task.desired == "running" and found.state != "running":
                return f"{name} on {task.node} is {found.state}"
        for node in self.nodes.values():
            for name in node.containers:
                if name not in state.tasks or state.tasks[name].node != node.name:
                    return f"{node.name} has {name}, which is not its own"
        if why := self._not_empty(planes[0]):
            return why
        return f"tasks rest: {sorted(state.draining)}" if state.draining else ""

    def _not_empty(self, plane: ControlPlane) -> str:
        """Which node is drained and has a task, where others could take it."""
        drained = {n for n, m in plane.cluster.members.items() if m.node.availability == "drain"}
        left = sorted(t.name for t in plane.state.tasks.values() if t.node in drained)
        return f"{left[0]} is on a node that is drained" if left and plane.cluster.members.keys() - drained else ""


WORLD: list[World] = []
"""The one that the production code's parts, made by the control plane itself, belong to."""


def sim_node(name: str) -> Node:
    """The record of a node."""
    return Node(name=name, id=f"id-{name}", target=f"root@{name}", underlay=f"10.0.0.{name[1:]}", host_key="k", info=INFO)


async def advertised_node(known: Node, advertise: str, run: Path) -> Node:
    """In place of the production one, which asks its SSH server."""
    del advertise, run
    return msgspec.structs.replace(sim_node(known.name), id=f"id-{known.name}")


class SimTunnel:
    """In place of an SSH connection: there is nothing to keep open."""

    def __init__(self, node: Node) -> None:
        self.local = Path(node.name)
        self.ends = ("", "")
        self.connected = False
        self.on_problem: Any = lambda _: None

    def start(self) -> None: ...

    def hurry(self) -> None: ...

    async def close(self) -> None: ...


def make_tunnel(node: Node, run: Path, links: Links) -> SimTunnel:
    """In place of the production one."""
    del run, links
    return SimTunnel(node)


class SimAgentClient:
    """In place of `AgentClient`: calls go over the simulated network to a simulated node."""

    def __init__(self, node: str, socket: Path) -> None:
        self.node, self.socket, self.silent, self.last_line_at = node, socket, "", 0.0
        self._world, self._server = WORLD[-1], SERVER.get()
        self._answering: asyncio.Task[None] | None = None
        self.on_lease_ended: Callable[[], None] = lambda: None

    @property
    def _far(self) -> SimNode:
        return self._world.nodes[self.node]

    async def _exchange(self, work: Any) -> Any:
        """There and back; the answer may be lost when the work is done, and the work may be done twice."""
        self._world.messages += 1
        await self._world.hop(self._server, self.node)
        began = time.process_time()
        answer = work()
        self._world.nodes_cpu += time.process_time() - began
        await self._world.hop(self.node, self._server)
        return answer

    async def deliver(self, manifest: Manifest) -> None:
        data = msgspec.json.encode(manifest)
        self._world.sent += len(data)
        await self._exchange(lambda: self._far.apply(msgspec.json.decode(data, type=Manifest)))

    async def change(self, delta: Delta) -> None:
        data = msgspec.json.encode(delta)
        self._world.sent += len(data)
        await self._exchange(lambda: self._far.change(msgspec.json.decode(data, type=Delta)))

    async def call(self, method: str, path: str, **options: Any) -> Any:
        def work() -> Any:
            if path == "/pystack/images/ids":
                return {name: f"sha256:{name}" for name in msgspec.json.decode(options["data"])}
            if path == "/pystack/info":
                return msgspec.to_builtins(INFO)
            if path == "/pystack/leave":
                return self._far.leave(msgspec.json.decode(options["data"], type=Farewell).member)
            if path.startswith("/pystack/heard/"):
                self._far.lease.answered(int(path.rpartition("/")[2]))
                return {"ended": self._far.lease.ended}
            if path.startswith("/pystack/keys/"):
                return {"key": "k"}
            return []

        del method
        return await self._exchange(work)

    async def statuses(self) -> AsyncIterator[TaskStatus | None]:
        """As the production stream: those of all tasks, then changes; SILENT_S without a word end it."""
        far, world = self._far, self._world
        queue: asyncio.Queue[TaskStatus | None] = asyncio.Queue()
        try:
            await world.hop(self._server, self.node)
            far.listeners[queue] = queue.put_nowait
            for status in far.statuses():
                yield status
            yield None
            heard = world.loop.time()
            while True:
                said: TaskStatus | int | None = 0
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        said = await queue.get()
                except TimeoutError:
                    if any(t.strict for t in far.tasks.values()) and world.nodes[self.node].up:
                        said = far.lease.beat()
                await self._arrive(heard)
                if queue not in far.listeners:
                    raise UnreachableError(f"node {self.node} was switched off and on: it does not know of this connection")
                heard = world.loop.time()
                self.silent = ""
                if isinstance(said, int):
                    if said:
                        self._answering = asyncio.create_task(self._answer(said))
                else:
                    yield said
        finally:
            far.listeners.pop(queue, None)

    async def _arrive(self, heard: float) -> None:
        """Wait until the node's words come through. Raises UnreachableError after SILENT_S."""
        world = self._world
        while self.node != self._server and not world.reaches(self.node, self._server):
            if world.loop.time() - heard > SILENT_S or not self._far.up:
                self.silent = "it has said nothing"
                raise UnreachableError(f"node {self.node} does not answer")
            await asyncio.sleep(0.25)

    async def _answer(self, beat: int) -> None:
        with contextlib.suppress(UnreachableError):
            if (await self.call("POST", f"/pystack/heard/{beat}"))["ended"]:
                self.on_lease_ended()

    def give_up(self, why: str) -> None:
        self.silent = why

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        yield

    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        del method, path, options
        await self._world.hop(self._server, self.node)
        yield {}

    async def tail(self, container: str, lines: int) -> list[str]:
        del container, lines
        return []

    async def close(self) -> None: ...


class SimTime:
    """In place of the module `time` where the production code asks for the wall clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.wall()

    def monotonic(self) -> float:
        return self._loop.time()


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Let the production code make simulated parts."""
    import orchestrator.server.cluster as cluster
    import orchestrator.server.locks as locks
    import orchestrator.server.members as members
    import orchestrator.server.removed_nodes as removed_nodes
    import orchestrator.server.rollout as rollout

    parts: list[tuple[Any, str, Any]] = [
        (cluster, "make_tunnel", make_tunnel),
        (cluster, "advertised_node", advertised_node),
        (members, "AgentClient", SimAgentClient),
        (removed_nodes, "AgentClient", SimAgentClient),
        (removed_nodes, "make_tunnel", make_tunnel),
        *((module, "time", SimTime(world.loop)) for module in (rollout, locks, removed_nodes)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in parts]
    for module, name, value in parts:
        setattr(module, name, value)
    WORLD.append(world)
    try:
        yield
    finally:
        WORLD.pop()
        for module, name, value in before:
            setattr(module, name, value)


def end(loop: VirtualLoop, world: World) -> None:
    """End all that goes on in *world*, and close *loop*: what is only forgotten would be told of in another test."""
    with simulated(world):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(100))
    loop.close()
    asyncio.set_event_loop(None)
