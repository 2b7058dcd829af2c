"""Moves tasks off nodes that are drained or tainted: without a client, and by the next leader where one is lost.

`drains/<node>` in the store is written with the node's availability or taints, and deleted when there is nothing left to do.
Who goes on looks what is to be moved by then. Where no other node can take what is there, that is an error for those who wait,
and it is tried again when other nodes can have tasks than could.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server import store_keys
from orchestrator.server.cluster import Cluster
from orchestrator.server.events import Emit, Event, Failure, WarningEvent
from orchestrator.server.membership import Membership, NodeUpdateRequest
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState
from orchestrator.server.statuses import Statuses
from orchestrator.server.volume_migration import VolumeMigrator
from orchestrator.store.interface import Delete, Put, StoreError

log = logging.getLogger(__name__)


class DrainRecord(WireStruct, frozen=True, kw_only=True):
    """Tasks are to leave *node*; with *whole* all of them, and the volumes that follow them, otherwise those that do not
    tolerate its taints."""

    node: str
    whole: bool = True


class LiveDrain:
    """A drain that this server carries out, and those who watch it. *attempt* is the one that is going on, or was the last."""

    def __init__(self, record: DrainRecord) -> None:
        self.record = record
        self.watchers: list[Emit] = []
        self.task: asyncio.Task[None] | None = None
        self.attempt: asyncio.Future[list[Failure]] = asyncio.get_running_loop().create_future()

    def fail(self, error: PystackError) -> None:
        """The attempt ended with *error*, which its watchers get, if there are any."""
        self.attempt.set_exception(error)
        self.attempt.exception()

    def close(self, task: asyncio.Task[None]) -> None:
        """*task*, which worked at it, has ended: so has the attempt, if that is open."""
        error = None if task.cancelled() else task.exception()
        if self.attempt.done():
            return
        if task.cancelled():
            self.attempt.cancel()
        elif error:
            self.attempt.set_exception(error)
        else:
            self.attempt.set_result([])

    def emit(self, event: Event) -> None:
        """Tell all who watch."""
        for watcher in list(self.watchers):
            watcher(event)


class NodeDrainer:
    """Drains nodes; at most one drain of each is going on."""

    def __init__(
        self,
        state: ClusterState,
        cluster: Cluster,
        membership: Membership,
        rollouts: RolloutManager,
        migrator: VolumeMigrator,
        statuses: Statuses,
    ) -> None:
        self._state, self._cluster, self._membership, self._statuses = state, cluster, membership, statuses
        self._rollouts, self._migrator = rollouts, migrator
        self._live: dict[str, LiveDrain] = {}

    async def change(self, name: str, request: NodeUpdateRequest, emit: Emit) -> list[Failure]:
        """As `begin`, and wait until the node is empty, or for what speaks against it. Who is cancelled here stops watching;
        the work goes on. Returns the tasks that failed. Raises RefusedError, UnreachableError."""
        live = await self.begin(name, request)
        if live is None:
            return []
        live.watchers.append(emit)
        try:
            return await asyncio.shield(live.attempt)
        finally:
            live.watchers.remove(emit)

    async def begin(self, name: str, request: NodeUpdateRequest) -> LiveDrain | None:
        """Change the node *name*, and begin to empty it if it is drained now, or has a new `NoExecute` taint; None otherwise.
        Raises RefusedError, UnreachableError."""
        whole = request.availability == "drain"
        if not whole and not any(t.endswith(":NoExecute") for t in request.taints):
            node = await self._membership.change(name, request, emptied=self._emptied(name, request))
            if request.availability:
                await self._give_up(node.name)
            return None
        record = DrainRecord(node=self._cluster.get(name).node.name, whole=whole)
        # in one transaction: there is no drained node that nobody empties
        put = Put(store_keys.of_drain(record.node), msgspec.json.encode(record))
        await self._membership.change(name, request, put, emptied=self._emptied(name, request))
        live = self._live.get(record.node)
        if live is None or live.record != record:
            live = self._start(record)
        elif live.attempt.done():  # it waits for other nodes: not while somebody asks
            live.attempt = asyncio.get_running_loop().create_future()
            self._statuses.wake()
        return live

    def _emptied(self, name: str, request: NodeUpdateRequest) -> tuple[str, ...]:
        """The services of mode global that the node lacks for its drain, once it is as *request* says. Those that have tasks
        elsewhere when it is activated need no mention: it gets one as any node does, unless their user takes them away."""
        node, tasks = self._cluster.get(name).node, self._state.tasks.values()
        everywhere = {
            f"{stack}/{service.name}"
            for stack, record in self._state.stacks.items()
            for service in record.stack.services
            if service.mode == "global"
        }
        found = set(node.emptied)
        if request.availability == "drain":
            found |= {f"{t.stack}/{t.service}" for t in tasks if t.node == node.name}
        elif request.availability == "active":
            found -= {f"{t.stack}/{t.service}" for t in tasks}
        return tuple(sorted(found & everywhere))

    async def resume_all(self) -> None:
        """Go on with what another leader left. Raises StoreError."""
        for entry in await self._state.store.scan(store_keys.DRAINS):
            record = msgspec.json.decode(entry.value, type=DrainRecord)
            if record.node not in self._live:
                log.warning("node %s is emptied: another server began it", record.node)
                self._start(record)

    def _start(self, record: DrainRecord) -> LiveDrain:
        live = self._live[record.node] = LiveDrain(record)
        live.task = asyncio.create_task(self._work(live), name=f"drain {record.node}")
        live.task.add_done_callback(live.close)
        return live

    async def _work(self, live: LiveDrain) -> None:
        try:
            while not await self._tried(live):
                if not self._goes_on(live.record):
                    await self._end(live)
                    break
        finally:
            if self._live.get(live.record.node) is live:
                del self._live[live.record.node]

    async def _tried(self, live: LiveDrain) -> bool:
        """Whether this was the last attempt; otherwise this returns when it is time for the next."""
        able = self._able()
        try:
            failures = await self._empty(live)
        except StoreError as error:  # this server leads no more: the next one goes on
            live.fail(error)
            return True
        except PystackError as error:
            log.warning("node %s is not empty: %s", live.record.node, error)
            live.fail(error)
        else:
            await self._end(live)
            live.attempt.set_result(failures)
            return True
        await self._statuses.until(
            lambda: self._able() != able or not live.attempt.done() or not self._goes_on(live.record) or None
        )
        if live.attempt.done():
            live.attempt = asyncio.get_running_loop().create_future()
        return False

    async def _empty(self, live: LiveDrain) -> list[Failure]:
        """Move the volumes that follow their users, then redeploy each stack that has tasks there; placement decides which of
        them may stay."""
        node, failures, refused = live.record.node, list[Failure](), list[PystackError]()
        await self._cluster.settled()  # one that is about to report can take tasks
        if live.record.whole and self._goes_on(live.record):
            failures += await self._migrator.evacuate(node, live.emit)
        for stack in sorted({t.stack for t in self._state.tasks.values() if t.node == node}):
            if not self._goes_on(live.record):
                break
            try:
                failures += await self._rollouts.redeploy(stack, live.emit)
            except StoreError:
                raise
            except PystackError as error:  # other stacks can go
                if not isinstance(error, RefusedError) or error.status != 404:  # it was taken down meanwhile
                    refused.append(error)
        if refused:
            raise refused[0]
        for sentence in self._staying(node):
            live.emit(WarningEvent(message=sentence))
        return failures

    def _staying(self, node: str) -> list[str]:
        """What is to be said of the tasks that are still on *node* because of a volume that lives there."""
        out = []
        for task in sorted((t for t in self._state.tasks.values() if t.node == node), key=lambda t: t.name):
            volumes = [v for m in task.container.mounts if m.kind == "volume" and (v := self._state.volumes.get(m.source))]
            for volume in [v for v in volumes if v.node == node and not v.shared][:1]:
                why = (
                    f"no other node can take both: `pystack why {task.name}`"
                    if volume.follow
                    else f"`pystack volume move {volume.name} NODE` moves both, x-volume: {{follow: true}} does with each drain"
                )
                out.append(f"{task.name} stays on {node}, where its volume {volume.name} lives: {why}")
        return out

    def _able(self) -> set[str]:
        """The names of the nodes that answer and may get tasks."""
        return {n for n in self._cluster.ready if self._cluster.members[n].node.availability == "active"}

    def _goes_on(self, record: DrainRecord) -> bool:
        """Whether the node is still there, and is still to be empty."""
        member = self._cluster.members.get(record.node)
        if member is None:
            return False
        return member.node.availability == "drain" if record.whole else bool(member.node.taints)

    async def _end(self, live: LiveDrain) -> None:
        with contextlib.suppress(StoreError):  # the next leader finds nothing left to do
            if self._live.get(live.record.node) is live:
                await self._state.transact([Delete(store_keys.of_drain(live.record.node))])

    async def _give_up(self, node: str) -> None:
        """The node may have tasks again."""
        self._live.pop(node, None)  # it ends by itself before its next stack
        self._statuses.wake()
        await self._state.transact([Delete(store_keys.of_drain(node))])

    async def close(self) -> None:
        """Leave everything as it is: who leads next goes on."""
        tasks = [live.task for live in self._live.values() if live.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
