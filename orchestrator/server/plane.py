"""The control plane: its parts put together, and its loops started. Everything of the API goes through one of the parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from orchestrator.server import store_version
from orchestrator.server.access.book import AccessBook
from orchestrator.server.access.log import AuditLog
from orchestrator.server.access.sessions import Sessions, Throttle
from orchestrator.server.autoscaler import Autoscaler
from orchestrator.server.backups.restore import VolumeRestorer
from orchestrator.server.backups.runner import BackupRunner
from orchestrator.server.backups.sources import BackupSources
from orchestrator.server.checked_store import CheckedStore
from orchestrator.server.cluster import Cluster
from orchestrator.server.compaction import Compactor
from orchestrator.server.contents import Contents
from orchestrator.server.departures import Departures
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.drain import NodeDrainer
from orchestrator.server.events import Emit, Failure
from orchestrator.server.execute import PlanExecutor
from orchestrator.server.global_tasks import GlobalTasks
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.jobs.book import RunBook
from orchestrator.server.jobs.controller import JobController
from orchestrator.server.jobs.hooks import DeployHooks
from orchestrator.server.jobs.waiting import JobWaiter
from orchestrator.server.joining import NodeJoiner
from orchestrator.server.membership import Membership
from orchestrator.server.plan import Planner
from orchestrator.server.preemption import PreemptedReturn
from orchestrator.server.records import StackRecord
from orchestrator.server.reschedule import Rescheduler
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState
from orchestrator.server.volume_migration import VolumeMigrator
from orchestrator.store.interface import Store, StoreError
from orchestrator.transport.node_listener import NodeListener

log = logging.getLogger(__name__)


class ControlPlane:
    """*node* is the name of the server's own node, *socket* its agent's, *run* the folder of forwarded sockets, *keys* the one
    of this host's keys. *advertise* is how other servers reach this host over SSH, "" if there are none. Tasks of a node that
    is silent for *reschedule_after_s* are moved to others; None: never."""

    def __init__(
        self,
        store: Store,
        node: str,
        socket: Path,
        run: Path,
        keys: Path,
        advertise: str = "",
        reschedule_after_s: float | None = None,
    ) -> None:
        self.timings = (store := CheckedStore(store)).timings
        self.store: Store = store
        self.began = time.time()
        """When this server began to lead."""
        self.state = ClusterState(store)
        self.access = AccessBook(store)
        self.sessions, self.throttle = Sessions(), Throttle()
        self.audit = AuditLog(store)
        self.contents = Contents(store, keys, node)
        # the connections begin with `start`: by then there is a dispatcher
        self.cluster = Cluster(
            store,
            node,
            socket,
            run,
            lambda name: self.dispatcher.manifest(name),
            lambda name, status: self.dispatcher.on_status(name, status),
            advertise,
        )
        self.membership = Membership(self.cluster, run)
        self.joiner = NodeJoiner(self.cluster, self.membership, keys)
        self.dispatcher = Dispatcher(self.state, self.cluster, self.contents)
        self.statuses = self.dispatcher.statuses
        self.images = Images(self.cluster)
        self.inputs = Inputs(self.state, self.cluster, self.statuses)
        self.planner = Planner(self.dispatcher, self.contents, self.images, self.inputs)
        book = RunBook(self.state)
        self.jobs = JobController(self.dispatcher, self.images, self.inputs, book, lost_after_s=reschedule_after_s)
        waiter = JobWaiter(self.dispatcher, book, moving=reschedule_after_s is not None)
        hooks = DeployHooks(self.dispatcher, book, self.jobs.starter)
        self.executor = PlanExecutor(self.dispatcher, self.planner, self.contents, self.images, waiter, hooks)
        self.rollouts = RolloutManager(self.state, self.contents, self.executor)
        self.migrator = VolumeMigrator(self.dispatcher, self.rollouts, self.inputs)
        self.drainer = NodeDrainer(self.state, self.cluster, self.membership, self.rollouts, self.migrator, self.statuses)
        self.departures = Departures(self.cluster, self.drainer)
        self.backup_sources = BackupSources(self.dispatcher, self.contents)
        self.backups = self.jobs.other = BackupRunner(self.backup_sources, self.jobs)
        self.restorer = VolumeRestorer(self.dispatcher, self.rollouts, self.backup_sources)
        self.autoscaler = Autoscaler(self.dispatcher, self.rollouts)
        self.planner.inquiries.append(self.autoscaler.check)
        self.rollouts.scaled_by_hand = self._scaled_by_hand
        self.must_restart = False
        """Whether the server's process is to begin again when it stops: the store is another one."""
        self.loaded = False
        """Whether all of the store was read: only then can a stand-by answer from memory."""
        self._reschedule_after_s = reschedule_after_s
        self._loops: list[asyncio.Task[None]] = []
        self._placing = asyncio.Lock()

    def listen_for_nodes(self, listener: NodeListener) -> None:
        """Let machines join that dial *listener*; to be called before `start`."""
        self.cluster.links, self.joiner.listener = listener.links, listener

    @property
    def node(self) -> str:
        """The name of the server's own node."""
        return self.cluster.local

    async def start(self) -> None:
        """Read the store, connect the nodes, and start the loops. Raises StoreError; PystackError for a newer one."""
        await store_version.claim(self.store)
        await self._load()
        await self.audit.load()
        await self.contents.start()
        await self._sweep_contents()
        # gates that a killed server left closed are not opened here: those tasks wait for the next `up`
        await self.cluster.start()
        await self.membership.start()
        await self.joiner.start()
        self.loaded = True
        self._loops.append(asyncio.create_task(self.jobs.run(), name="jobs"))
        self._loops.append(asyncio.create_task(self.autoscaler.run(), name="autoscale"))
        self._loops.append(asyncio.create_task(self.migrator.leftovers.run(), name="old copies of volumes"))
        self._loops.append(asyncio.create_task(self.migrator.retry(), name="end moves of volumes"))
        self._loops.append(asyncio.create_task(self._resume(), name="resume rollouts and drains"))
        self._loops.append(asyncio.create_task(Compactor(self.store).run(), name="compact the store"))
        after_s = math.inf if self._reschedule_after_s is None else self._reschedule_after_s
        rescheduler = Rescheduler(self.dispatcher, self.images, self.inputs, after_s)
        self._loops.append(asyncio.create_task(rescheduler.run(), name="reschedule"))
        everywhere = GlobalTasks(self.state, self.cluster, self.inputs, self._redeploy_alone, self.rollouts.is_paused)
        self._loops.append(asyncio.create_task(everywhere.run(), name="tasks of mode global"))
        back = PreemptedReturn(self.dispatcher, self.inputs, self._redeploy_alone)
        self._loops.append(asyncio.create_task(back.run(), name="bring back what was preempted"))

    async def _load(self) -> None:
        await self.state.load()
        await self.access.load()
        await self.jobs.book.load()
        await self.rollouts.load()
        await self.autoscaler.load()

    async def recall(self) -> None:
        """Read the store, which is a copy, to answer from memory alone: nothing is connected or begun. Raises StoreError."""
        await self._load()
        with contextlib.suppress(StoreError):  # it is still to be sealed to this server: what is sealed is not shown anyway
            await self.contents.start()
        await self.cluster.recall()
        self.loaded = True

    async def _resume(self) -> None:
        """Go on with what another leader left. Moves of volumes are ended first: a drain may want them the other way."""
        await asyncio.gather(self.migrator.recover(), self.rollouts.resume_all())
        await self.drainer.resume_all()

    async def _redeploy_alone(self, stack: str, emit: Emit) -> list[Failure]:
        """`RolloutManager.redeploy`, one after the other: a node that is there again is room that all of them see."""
        async with self._placing:
            return await self.rollouts.redeploy(stack, emit)

    async def _scaled_by_hand(self, stack: str, services: Collection[str]) -> None:
        """A user who gives the number of replicas does not want it changed."""
        for name in services:
            if any(s.name == name and s.scale for s in self.state.get_stack(stack).stack.services):
                await self.autoscaler.pause(stack, name, True, "scaled by hand: `pystack autoscale resume` ends that")

    async def _sweep_contents(self) -> None:
        """Delete the contents that no stack, task or revision uses any more."""
        if self.contents.empty:
            return
        records = [msgspec.json.decode(e.value, type=StackRecord) for e in await self.store.scan("history/")]
        used = {c.digest for r in (*records, *self.state.stacks.values()) for c in r.stack.contents}
        try:
            await self.contents.sweep(used | {f.digest for t in self.state.tasks.values() for f in t.container.files})
        except StoreError as error:  # a full disk: the sweep can wait, the cluster cannot
            log.warning("what no stack uses any more is still kept: %s", error)

    async def close(self) -> None:
        """Stop the loops, and close the connections and the store."""
        for task in self._loops:
            task.cancel()
        await self.backups.close()
        await self.autoscaler.figures.close()
        await self.departures.close()
        await self.drainer.close()
        await self.rollouts.close()
        await self.dispatcher.close()
        await self.joiner.close()
        await self.membership.close()
        await self.cluster.close()
        await self.audit.close()
        await self.store.close()
