"""Sends every node its manifest, and takes in the statuses of its tasks. The name is swarmkit's (`manager/dispatcher`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from agent.contract.manifest import Manifest
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.planning.manifests import ingress_ports, manifest_of
from orchestrator.server.cluster import Cluster
from orchestrator.server.contents import Contents
from orchestrator.server.events import Failure, TaskChange
from orchestrator.server.state import ClusterState
from orchestrator.server.statuses import Statuses, may_serve, serves

LOG_LINES = 10
"""How many last lines of a task's output a failure carries."""
QUEUE = 4096
"""How many statuses a slow reader of `follow` may be behind before it misses some."""


class Dispatcher:
    """Changes tasks in the store and on their nodes: every method returns when the nodes that answer have the change."""

    def __init__(self, state: ClusterState, cluster: Cluster, contents: Contents) -> None:
        self.state = state
        self.cluster = cluster
        self.statuses = Statuses()
        self._contents = contents
        self._affected: set[str] = set()
        self._notifier: asyncio.Task[None] | None = None

    # --- manifests ---------------------------------------------------------------------------------------------

    def manifest(self, node: str) -> Manifest:
        """Everything that *node* must run and know, as of now."""
        state, statuses = self.state, self.statuses.by_task
        running = {name for name, status in statuses.items() if may_serve(status)} - state.draining
        manifest = manifest_of(
            node,
            [m.node for m in self.cluster.members.values()],
            state.revision,
            state.networks,
            state.volumes,
            state.tasks.values(),
            {name for name in running if serves(statuses[name])},
            running,
        )
        files = {f.digest: f for t in state.tasks.values() if t.node == node for f in t.container.files}
        key = self.cluster.members[node].node.info.seal_key
        contents = (self._contents.content_for_node(f, key) for f in files.values())
        return msgspec.structs.replace(manifest, contents=tuple(c for c in contents if c)) if files else manifest

    async def write_tasks(self, tasks: Sequence[Task]) -> None:
        """Write *tasks* and deliver them."""
        await self.state.put(tasks=tasks)
        await self.cluster.deliver()

    async def remove_tasks(self, names: Sequence[str]) -> None:
        """Delete tasks; their nodes then stop them. `wait_removed` waits until they have."""
        await self.state.delete_tasks(names)
        await self.cluster.deliver()

    async def drain_tasks(self, names: Iterable[str]) -> None:
        """Send no new connections to these tasks from now on."""
        self.state.draining |= set(names)
        await self.cluster.deliver()

    async def wait_removed(self, names: Sequence[str]) -> None:
        """Wait until the nodes have removed *names*. A node that does not answer removes them when it is back."""

        def answer() -> bool | None:
            local, ready = self.cluster.local, self.cluster.ready
            self.statuses.forget({n for n in names if self.statuses.nodes.get(n, local) not in ready})
            return True if all(n not in self.statuses.by_task for n in names) else None

        await self.statuses.until(answer)

    # --- statuses ----------------------------------------------------------------------------------------------

    def on_status(self, node: str, status: TaskStatus) -> None:
        """Take in what *node* reports of one task."""
        tasks = self.state.tasks
        if status.task in tasks and tasks[status.task].node != node:
            return  # the node was silent and does not know yet that its task went to another
        before = self.statuses.by_task.get(status.task)
        self.statuses.update(node, status)
        was = (may_serve(before), serves(before)) if before else (False, False)
        if was != (may_serve(status), serves(status)) and status.task in tasks:
            self._notify_affected_nodes(tasks[status.task])

    def _notify_affected_nodes(self, task: Task) -> None:
        """*task* began or ceased to serve: deliver to the nodes that balance connections over it."""
        networks = self.state.networks
        around = {h.name for a in task.container.attachments if a.network in networks for h in networks[a.network].hosts}
        if not task.container.attachments or (len(self.cluster.members) < 2 and not ingress_ports(task)):
            return
        self._affected |= around or {task.node}
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.create_task(self._deliver_affected())

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
        if self._notifier:
            self._notifier.cancel()
