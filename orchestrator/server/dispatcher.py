"""Sends every node its manifest, and takes in the statuses of its tasks. The name is swarmkit's (`manager/dispatcher`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence, Set

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import PystackError, UnreachableError
from orchestrator.planning.manifests import Manifests, ingress_ports
from orchestrator.server.cluster import Cluster
from orchestrator.server.contents import Contents
from orchestrator.server.events import Failure, TaskChange
from orchestrator.server.state import ClusterState
from orchestrator.server.statuses import Statuses, is_removed, may_serve, serves

LOG_LINES = 10
"""How many last lines of a task's output a failure carries."""
FORGET_S = 1.0
"""How long nodes may know the addresses of a task whose container has ended: nothing new is sent there, and not each of many
that end one after the other is to be news to all nodes."""
QUEUE = 4096
"""How many statuses a slow reader of `follow` may be behind before it misses some."""


class Dispatcher:
    """Changes tasks in the store and on their nodes: every method returns when the nodes that answer have the change."""

    def __init__(self, state: ClusterState, cluster: Cluster, contents: Contents) -> None:
        self.state = state
        self.cluster = cluster
        self.statuses = Statuses()
        self._contents = contents
        self._leaving: dict[str, Task] = {}
        """Tasks that were removed, and whose containers their nodes may still have, as one-off ones: see `_still_leaving`."""
        self.lingerers: list[Callable[[Set[str]], float]] = []
        """Each says for how many seconds something may still be on its way to tasks that no longer get new connections."""
        self._liveness = 0
        """How often a node began to answer, or fell silent."""
        self._last: tuple[tuple[object, ...], Manifests] | None = None
        self._affected: set[str] = set()
        self._remembering: set[str] = set()
        """Nodes that know tasks which have ended, until `_forget`."""
        self._forgetter: asyncio.TimerHandle | None = None
        self._notifier: asyncio.Task[None] | None = None
        cluster.on_liveness = self._on_liveness

    # --- manifests ---------------------------------------------------------------------------------------------

    def manifest(self, node: str) -> Manifest:
        """Everything that *node* must run and know, as of now. Raises UnreachableError if it was removed from the cluster while
        this was on its way."""
        state, member = self.state, self.cluster.members.get(node)
        if member is None:
            raise UnreachableError(f"node {node} is gone from the cluster")
        manifests = self._manifests()
        manifest = manifests.of(node)
        files = {f.digest: f for t in manifests.here.get(node, ()) if t.name in state.tasks for f in t.container.files}
        key = member.node.info.seal_key
        contents = (self._contents.content_for_node(f, key) for f in files.values())
        return msgspec.structs.replace(manifest, term=state.store.term, contents=tuple(c for c in contents if c))

    def _manifests(self) -> Manifests:
        """Those of now. They are made again where anything that they are made of is another object than it was then."""
        state = self.state
        nodes = [m.node for m in self.cluster.members.values()]
        tasks = [*(t for n, t in state.tasks.items() if n not in state.moving), *self._still_leaving()]
        moment = (
            state.revision,
            nodes,
            list(state.networks.values()),
            list(state.volumes.values()),
            tasks,
            self.statuses.changes,
            self._liveness,
            set(state.draining),
        )
        if self._last is None or self._last[0] != moment:
            before = self._last[1] if self._last else None
            networks, volumes = state.networks, dict(state.volumes)
            made = Manifests(nodes, state.revision, networks, volumes, tasks, self.backends(), before)
            self._last = (moment, made)
        return self._last[1]

    def backends(self) -> Sequence[Set[str]]:
        """The names of the tasks that may take connections: those that surely do, those that run, those that ran when their
        node last reported. Of each service the first that has any of its tasks counts."""
        tasks, statuses, silent = self.state.tasks, self.statuses.by_task, self.cluster.silent
        # a server that begins to lead lacks statuses of some nodes: their tasks count as its predecessor left them
        unheard = {n for n, member in self.cluster.members.items() if member.unheard}
        assumed = {n for n, t in tasks.items() if t.node in unheard and t.desired == "running" and n not in statuses}
        running = {name for name, status in statuses.items() if may_serve(status) and name in tasks} | assumed
        running -= self.state.draining | {name for name in running if tasks[name].node not in self.cluster.members}
        answering = {name for name in running if tasks[name].node not in silent}
        serving = {name for name in answering if name in assumed or serves(statuses[name])}
        return serving, answering, running

    def _still_leaving(self) -> Iterable[Task]:
        """The removed tasks whose containers still end: frames go to and from them until they are gone, so that the connections
        that they have can come to their end. They are on their networks as guests are, and nobody keeps them going."""
        if not self._leaving:
            return ()
        tasks, statuses = self.state.tasks, self.statuses
        taken = {address for t in tasks.values() for address in _addresses(t)}
        self._leaving = {
            name: task
            for name, task in self._leaving.items()
            if name not in tasks
            and name in statuses.by_task
            and statuses.nodes.get(name) == task.node
            and not _addresses(task) & taken
        }
        return self._leaving.values()

    async def write_tasks(self, tasks: Sequence[Task]) -> None:
        """Write *tasks* and deliver them."""
        await self.state.put(tasks=tasks)
        self.statuses.outdate(tasks)
        await self.cluster.deliver()

    async def remove_tasks(self, names: Sequence[str]) -> None:
        """Delete tasks, once no node sends them new connections; their nodes then stop them. `wait_removed` waits until they
        have."""
        async with self.drained(names):
            leaving = {n: self.state.tasks[n] for n in names if n in self.state.tasks}
            self._leaving |= {name: _as_oneoff(task) for name, task in leaving.items()}
            await self.state.delete_tasks(names)
            await self.cluster.deliver()

    async def drain_tasks(self, names: Iterable[str]) -> None:
        """Send no new connections to these tasks from now on, until `undrain_tasks` or their removal; return when what was on
        its way to them has arrived."""
        if news := {n for n in names if n in self.state.tasks} - self.state.draining:
            serving = self.backends()[1] & news
            self.state.draining |= news
            await self.cluster.deliver_where_possible()
            if pause_s := max((lingers(serving) for lingers in self.lingerers), default=0.0):
                await asyncio.sleep(pause_s)

    async def undrain_tasks(self, names: Iterable[str]) -> None:
        """Let new connections go to these tasks again, as far as they are there."""
        drained = self.state.draining & set(names)
        self.state.draining -= drained
        if drained & self.state.tasks.keys():
            await self.cluster.deliver_where_possible()

    @contextlib.asynccontextmanager
    async def drained(self, names: Collection[str]) -> AsyncIterator[None]:
        """Meanwhile no new connections go to these tasks; however that ends, those that are left then get them again."""
        try:
            await self.drain_tasks(names)
            yield
        finally:
            await self.undrain_tasks(names)

    async def wait_removed(self, names: Sequence[str]) -> None:
        """Wait until the nodes have removed *names*. A node that does not answer removes them when it is back; a strict task is
        waited for until the lease of its node has ended, too."""

        blocker = ""

        def answer() -> bool | None:
            nonlocal blocker
            # one that is about to be ready again has said what it runs: that must not be forgotten
            here = self.cluster.members.keys() - self.cluster.away
            ready, local = self.cluster.obedient, self.cluster.local
            # the one that was waited for mostly answers alone: each of many tasks that end has all asked again
            if blocker in self.statuses.by_task and self.statuses.nodes.get(blocker, local) in here:
                return None
            self.statuses.forget({n for n in names if self.statuses.nodes.get(n, local) not in here})
            blocker = next((n for n in reversed(names) if n in self.statuses.by_task), "")
            if blocker:
                return None
            at = {self.state.held[n] for n in names if n in self.state.held}
            return True if all(node in ready or self.cluster.is_fenced(node) for node in at) else None

        await self.statuses.until(answer)
        await self.state.release(names)

    async def wait_held(self, tasks: Iterable[Task]) -> None:
        """Wait until no other node can run one of *tasks* that is to be made: what broke off may have deleted it before."""
        known, held = self.state.tasks, self.state.held
        if away := [t.name for t in tasks if t.name not in known and held.get(t.name, t.node) != t.node]:
            await self.wait_removed(away)

    # --- statuses ----------------------------------------------------------------------------------------------

    def on_status(self, node: str, status: TaskStatus) -> None:
        """Take in what *node* reports of one task."""
        tasks = self.state.tasks
        known = self.statuses.nodes.get(status.task)
        if self._node_of(status.task) not in ("", node) and not (is_removed(status) and known == node):
            return  # the node was silent and does not know yet that its task went to another
        before = self.statuses.by_task.get(status.task)
        self.statuses.update(node, status)
        if status.task not in self.statuses.by_task and (gone := self._leaving.pop(status.task, None)):
            self._remembering |= self._affected_by(gone)
            if self._remembering and self._forgetter is None:
                self._forgetter = asyncio.get_running_loop().call_later(FORGET_S, self._forget)
        was = (may_serve(before), serves(before)) if before else (False, False)
        if was != (may_serve(status), serves(status)) and status.task in tasks:
            self._notify_affected_nodes(tasks[status.task])

    def _node_of(self, task: str) -> str:
        """The node whose word on *task* counts, also while that ends there after it was removed; "" where none is known."""
        if found := self.state.tasks.get(task) or self._leaving.get(task):
            return found.node
        return self.state.held.get(task, "")

    def _on_liveness(self, node: str) -> None:
        """*node* began to answer or fell silent: its tasks are backends again, or no more."""
        self._liveness += 1
        for task in [t for t in self.state.tasks.values() if t.node == node]:
            self._notify_affected_nodes(task)

    def _notify_affected_nodes(self, task: Task) -> None:
        """*task* began or ceased to serve: deliver to the nodes that balance connections over it."""
        self._affected |= self._affected_by(task)
        self._start_notifier()

    def _start_notifier(self) -> None:
        if self._affected and (self._notifier is None or self._notifier.done()):
            self._notifier = asyncio.create_task(self._deliver_affected())

    def _affected_by(self, task: Task) -> Set[str]:
        """The nodes whose manifests have *task* among the endpoints of their networks; none where there is but one."""
        networks = self.state.networks
        around = {h.name for a in task.container.attachments if a.network in networks for h in networks[a.network].hosts}
        alone = len(self.cluster.members) < 2 and not ingress_ports(task)
        if not self.cluster.followers and (alone or not task.container.attachments):
            return set()
        return around or {task.node}

    def _forget(self) -> None:
        self._forgetter = None
        self._affected |= self._remembering
        self._remembering = set()
        self._start_notifier()

    async def _deliver_affected(self) -> None:
        while self._affected:
            nodes, self._affected = self._affected, set()
            with contextlib.suppress(PystackError):
                await self.cluster.deliver(nodes)

    def unreachable_reason(self, task: Task) -> str:
        """Why the node of *task* does not answer, "" if it does."""
        return self.cluster.unreachable_reason(task.node)

    async def with_log(self, failure: Failure) -> Failure:
        """*failure* with the last lines of its task's output, if the task has a container."""
        status = self.statuses.by_task.get(failure.task)
        if status is None or not status.container:
            return failure
        client = self.cluster.get(self.statuses.nodes.get(failure.task, self.cluster.local)).client
        return msgspec.structs.replace(failure, log=tuple(await client.tail(status.container, LOG_LINES)))

    async def follow(self) -> AsyncIterator[TaskChange]:
        """Every change of a task's status, as it comes. Never ends."""
        queue: asyncio.Queue[TaskStatus] = asyncio.Queue(QUEUE)

        def listen(status: TaskStatus) -> None:
            if not queue.full():
                queue.put_nowait(status)

        self.statuses.listeners.add(listen)
        try:
            while True:
                status = await queue.get()
                yield TaskChange.of(status, self.state.tasks.get(status.task))
        finally:
            self.statuses.listeners.discard(listen)

    async def close(self) -> None:
        """Stop delivering. The cluster's connections are closed by its own `close`."""
        if self._forgetter:
            self._forgetter.cancel()
        if self._notifier:
            self._notifier.cancel()


def _addresses(task: Task) -> set[tuple[str, str]]:
    """(network, address) of all its endpoints."""
    return {(a.network, address) for a in task.container.attachments for address in (a.ipv4, a.ipv6) if address}


def _as_oneoff(task: Task) -> Task:
    """*task* with its addresses, and without the names that others have too."""
    attachments = tuple(msgspec.structs.replace(a, aliases=()) for a in task.container.attachments)
    container = msgspec.structs.replace(task.container, attachments=attachments, hostname="")
    return msgspec.structs.replace(task, desired="oneoff", container=container)
