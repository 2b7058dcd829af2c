"""Moves tasks off nodes that are drained or tainted: without a client, and by the next leader where one is lost.

`drains/<node>` in the store is written with the node's availability or taints, and deleted when there is nothing left to do.
Who goes on looks what is to be moved by then.
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
from orchestrator.server.events import Emit, Event, Failure
from orchestrator.server.membership import Membership, NodeUpdateRequest
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState
from orchestrator.server.volume_migration import VolumeMigrator
from orchestrator.store.interface import Delete, Put, StoreError

log = logging.getLogger(__name__)


class DrainRecord(WireStruct, frozen=True, kw_only=True):
    """Tasks are to leave *node*; with *whole* all of them, and the volumes that follow them, otherwise those that do not
    tolerate its taints."""

    node: str
    whole: bool = True


class LiveDrain:
    """A drain that this server carries out, and those who watch it."""

    def __init__(self, record: DrainRecord) -> None:
        self.record = record
        self.watchers: list[Emit] = []
        self.task: asyncio.Task[list[Failure]] | None = None

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
    ) -> None:
        self._state, self._cluster, self._membership = state, cluster, membership
        self._rollouts, self._migrator = rollouts, migrator
        self._live: dict[str, LiveDrain] = {}

    async def change(self, name: str, request: NodeUpdateRequest, emit: Emit) -> list[Failure]:
        """As `begin`, and wait until the node is empty. Who is cancelled here stops watching; the work goes on. Returns the
        tasks that failed. Raises RefusedError, UnreachableError."""
        live = await self.begin(name, request)
        if live is None:
            return []
        assert live.task
        live.watchers.append(emit)
        try:
            return await asyncio.shield(live.task)
        finally:
            live.watchers.remove(emit)

    async def begin(self, name: str, request: NodeUpdateRequest) -> LiveDrain | None:
        """Change the node *name*, and begin to empty it if it is drained now, or has a new `NoExecute` taint; None otherwise.
        Raises RefusedError, UnreachableError."""
        whole = request.availability == "drain"
        if not whole and not any(t.endswith(":NoExecute") for t in request.taints):
            node = await self._membership.change(name, request)
            if request.availability:
                await self._give_up(node.name)
            return None
        record = DrainRecord(node=self._cluster.get(name).node.name, whole=whole)
        # in one transaction: there is no drained node that nobody empties
        await self._membership.change(name, request, Put(store_keys.of_drain(record.node), msgspec.json.encode(record)))
        live = self._live.get(record.node)
        if live is None or live.record != record:
            live = self._start(record)
        return live

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
        live.task.add_done_callback(_retrieved)
        return live

    async def _work(self, live: LiveDrain) -> list[Failure]:
        try:
            failures = await self._empty(live)
        except StoreError:  # this server leads no more: the next one goes on
            raise
        except PystackError as error:
            log.warning("node %s is not empty: %s", live.record.node, error)
            await self._end(live)
            raise
        else:
            await self._end(live)
            return failures
        finally:
            if self._live.get(live.record.node) is live:
                del self._live[live.record.node]

    async def _empty(self, live: LiveDrain) -> list[Failure]:
        """Move the volumes that follow their users, then redeploy each stack that has tasks there; placement decides which of
        them may stay."""
        node, failures = live.record.node, list[Failure]()
        await self._cluster.settled()  # one that is about to report can take tasks
        if live.record.whole and self._goes_on(live.record):
            failures += await self._migrator.evacuate(node, live.emit)
        for stack in sorted({t.stack for t in self._state.tasks.values() if t.node == node}):
            if not self._goes_on(live.record):
                break
            try:
                failures += await self._rollouts.redeploy(stack, live.emit)
            except RefusedError as error:
                if error.status != 404:  # it was taken down meanwhile
                    raise
        return failures

    def _goes_on(self, record: DrainRecord) -> bool:
        """Whether the node is still there, and is still to be empty."""
        member = self._cluster.members.get(record.node)
        return member is not None and (not record.whole or member.node.availability == "drain")

    async def _end(self, live: LiveDrain) -> None:
        with contextlib.suppress(StoreError):  # the next leader finds nothing left to do
            if self._live.get(live.record.node) is live:
                await self._state.transact([Delete(store_keys.of_drain(live.record.node))])

    async def _give_up(self, node: str) -> None:
        """The node may have tasks again."""
        self._live.pop(node, None)  # it ends by itself before its next stack
        await self._state.transact([Delete(store_keys.of_drain(node))])

    async def close(self) -> None:
        """Leave everything as it is: who leads next goes on."""
        tasks = [live.task for live in self._live.values() if live.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retrieved(task: asyncio.Task[list[Failure]]) -> None:
    """Nobody may watch any more: what failed was logged."""
    if not task.cancelled():
        task.exception()
