"""Brings the node to its manifest: one worker for each task, concurrently, which does the next action until none is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable

import msgspec

from agent import files
from agent.contract.container import adjusted, digest
from agent.contract.failpoints import failpoint
from agent.contract.manifest import Manifest
from agent.contract.status import NodeStatus, TaskStatus
from agent.contract.task import LAST_GRACE_S, LEASE_S, Task
from agent.contract.timings import Histogram
from agent.engine import changing, creating, sharing, stopping
from agent.engine.departure import Departure
from agent.engine.engine import Engine
from agent.engine.lease_fence import LeaseFence
from agent.engine.membership import Membership
from agent.engine.records import Record
from agent.engine.recovery import recover
from agent.errors import AgentError, ImageNotFoundError, NotModifiedError, user_message
from agent.reconcile import Action, Create, ObservedContainer, Prepare, Remove, Restart, Start, Stop, next_action
from agent.volumes.authorized_keys import write_authorized_keys

PARALLEL = 8
LOOK_S = 0.5
"""How often it is looked whether the lease has ended."""
log = logging.getLogger(__name__)


def _network_parts(manifest: Manifest) -> tuple[object, ...]:
    """The parts of *manifest* that concern networks beyond the tasks themselves."""
    return (
        manifest.networks,
        manifest.remote_endpoints,
        manifest.service_addresses,
        manifest.underlay,
        manifest.mtu,
        manifest.tunnels,
        manifest.nodes,
    )


def _status(engine: Engine, record: Record, task: Task | None, error: str) -> TaskStatus:
    # the error of an earlier container or start does not concern the one that is wanted now
    past = task is not None and (record.digest != digest(task.container) or record.generation < task.generation)
    failed = bool(error) or (record.state == "failed" and not past)
    return TaskStatus(
        task=record.task,
        state="failed" if failed else "pending" if record.state == "failed" else record.state,
        container=record.id,
        digest=record.digest,
        generation=record.generation,
        image=record.image,
        image_id=record.image_id,
        health=record.health,
        listens=record.id not in engine.containers.not_listening,
        exit_code=record.exit_code,
        oom_killed=record.oom_killed,
        restarts=record.restarts,
        ports=tuple(engine.networks.own_ports(record)),
        addresses=tuple((e.network, e.ipv4 or e.ipv6) for e in record.endpoints),
        created=record.created,
        started=record.started,
        finished=record.finished,
        error=error or ("" if past else record.error),
        pre_stop_failed=record.pre_stop_failed and not past and not error,
        notes=tuple(record.notes),
    )


class Converger:
    """Brings this node to its manifest: one worker for each task that has something to do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.manifest = Manifest()
        self.tasks: dict[str, Task] = {}
        self.listeners: set[Callable[[TaskStatus | None], None]] = set()
        """Each gets the new status of a task, or None when the node's own info has changed."""
        self.departure = Departure(self.listeners)
        self._file = engine.paths.root / "manifest.json"
        self._fence = engine.boot_fence
        self.lease = LeaseFence(time.monotonic)
        self.membership = Membership(engine.paths.root / "left.json")
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._errors: dict[str, str] = {}
        self._inherit: dict[str, dict[str, str]] = {}  # anonymous volumes that go over to a task's next container
        self._pulling: set[str] = set()
        self._slots = asyncio.Semaphore(PARALLEL)
        self.timings: defaultdict[str, Histogram] = defaultdict(Histogram)
        """How long steps of tasks took, without what they waited for a slot: prepare, create, start, stop, restart, remove."""
        engine.containers.changed = self._changed
        engine.networks.moved = engine.disk_changed = self._moved

    def _moved(self) -> None:
        for listen in self.listeners:
            listen(None)

    async def recover(self) -> None:
        """Go on with the manifest of the last agent: a node needs no control plane to keep its containers."""
        try:
            self._take(msgspec.json.decode(self._file.read_bytes(), type=Manifest))
        except FileNotFoundError:
            self._take(Manifest())
        except (OSError, msgspec.MsgspecError) as error:
            # its contents are unknown, so nothing may be removed for not being in it
            log.warning("%s is damaged (%s): what runs is left as it is until the control plane says more", self._file, error)
            self._file.rename(self._file.with_suffix(".damaged"))
        self._fence.close_after_boot(self.manifest)
        await recover(self.engine)
        if self.engine.networks.has_manifest:
            self._wake_all()

    def _take(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.tasks = {task.name: task for task in manifest.tasks}
        self.engine.context.manifest_volumes = {v.name: v for v in manifest.volumes}
        self.engine.context.contents = {c.digest: c for c in manifest.contents}
        self.engine.context.task_trust = {t.name: t.trust for t in manifest.tasks if t.trust}
        self.engine.networks.set_desired(manifest)

    def _export(self) -> None:
        """Let the nodes that mount volumes of this one in."""
        for volume in self.manifest.volumes:
            if volume.clients:
                self.engine.volumes.create(
                    volume.name, driver=volume.driver, options=dict(volume.options), labels=volume.own_labels
                )
        try:
            write_authorized_keys(self.engine.paths, self.manifest.volumes)
        except OSError as error:
            log.warning("other nodes cannot mount volumes of this one: %s", error)

    async def apply(self, manifest: Manifest) -> None:
        """Take over *manifest*; returns when it is kept on disk and work has begun, not when it is done."""
        self.membership.check(manifest, self.manifest)
        before = self.tasks
        around = _network_parts(self.manifest)
        failpoint("manifest.keep")
        files.write_atomically(self._file, msgspec.json.encode(manifest), 0o600)
        self._take(manifest)
        self._fence.confirm(manifest.tasks)
        self.confirm()
        moving = self._adjust()
        self._export()
        for name in set(before) | set(self.tasks):
            if before.get(name) != self.tasks.get(name):
                self._errors.pop(name, None)
                self._wake(name)
        self._remove_orphans()
        if moving or around != _network_parts(manifest):
            # before this returns: the control plane starts a task elsewhere once its peers know of it
            with contextlib.suppress(AgentError):
                await self.engine.networks.sync()
            for record in self.engine.containers.records.values():
                if record.task and record.ports:  # a port may have become its whole service's, or its own
                    self._report(record.task)

    def _adjust(self) -> bool:
        """Give tasks that run their new addresses and limits, where nothing else of them changed: the same container."""
        found = False
        for record in list(self.engine.containers.records.values()):
            task = self.tasks.get(record.task)
            attached = record.running and record.id in self.engine.networks.endpoints.attached
            if not task or task.desired != "running" or not record.running or not adjusted(record.container, task.container):
                continue
            if attached or record.container.attachments == task.container.attachments:
                try:
                    changing.adjust(self.engine.context, record, task.container, digest(task.container))
                    found = True
                except (AgentError, OSError) as error:
                    log.warning("task %s is recreated: its limits cannot be changed in place: %s", task.name, error)
        return found

    def _remove_orphans(self) -> None:
        for record in list(self.engine.containers.records.values()):
            if record.task and record.task not in self.tasks:
                self._wake(record.task)

    def confirm(self) -> None:
        """The tasks of the manifest that is here are this node's, as the control plane says now."""
        ended = self.lease.ended
        self.lease.taken_over()
        if ended:
            self._wake_strict()

    def _wake_strict(self) -> None:
        for task in self.tasks.values():
            if task.strict:
                self._wake(task.name)

    async def keep_lease(self) -> None:
        """Stop strict tasks when the lease ends. Until cancelled."""
        ended = False
        while True:
            await asyncio.sleep(LOOK_S)
            if self.lease.ended and not ended and any(t.strict for t in self.tasks.values()):
                log.warning("the control plane has not answered for %g s: tasks that must not run twice are stopped", LEASE_S)
                self._wake_strict()
            ended = self.lease.ended

    def _wake_all(self) -> None:
        for name in self.tasks:
            self._wake(name)
        self._remove_orphans()

    def _wake(self, name: str) -> None:
        self._again.add(name)
        if name not in self._workers:
            self._workers[name] = asyncio.create_task(self._work(name), name=f"converge {name}")

    def record(self, name: str) -> Record | None:
        """The record of task *name*; None if it has no container."""
        return self.engine.containers.of_task(name)

    def _next(self, name: str) -> Action | None:
        record = self.record(name)
        task = self.tasks.get(name)
        if task and task.strict and self.lease.ended:
            task = msgspec.structs.replace(task, desired="stopped")
        seen = None
        if record:
            seen = ObservedContainer(
                id=record.id,
                digest=record.digest,
                generation=record.generation,
                state=record.state,
                stopped=record.stopped,
            )
        present = True
        if task and task.desired == "waiting":
            with contextlib.suppress(AgentError):
                c = task.container
                present = self.engine.images.is_complete(self.engine.images.find(c.image_id or c.image))
        return next_action(task, seen, image_present=present)

    async def _work(self, name: str) -> None:
        try:
            while name in self._again:
                self._again.discard(name)
                while (action := self._next(name)) is not None:
                    if isinstance(action, Create | Start | Restart) and self._fence.holds(name):
                        await self._fence.wait(name)
                        continue
                    try:
                        await self._step(name, action)
                    except NotModifiedError:
                        continue
                    except Exception as error:
                        if not isinstance(error, (AgentError, OSError)):  # a fault of ours must not leave a caller waiting
                            log.exception("task %s", name)
                        self._errors[name] = user_message(error)
                        self._report(name)
                        break  # tried again when the manifest changes: the control plane decides
                self._report(name)
        finally:
            self._workers.pop(name, None)
            if name in self._again:
                self._wake(name)

    async def _step(self, name: str, action: Action) -> None:
        """Do *action*, or what is next when there is a slot for it. The wait for a container's end takes none: one that ignores
        its signal for the whole of its grace period keeps no other waiting."""
        if isinstance(action, Stop | Restart | Remove):
            with self.timings[type(action).__name__.lower()].timed():
                return await self._end(name, action)
        async with self._slots:
            now = self._next(name)  # the world may have changed in the queue
            if isinstance(now, Prepare | Create | Start):
                with self.timings[type(now).__name__.lower()].timed():
                    await self._begin(name, now)

    async def _begin(self, name: str, action: Prepare | Create | Start) -> None:
        engine = self.engine
        match action:
            case Prepare():
                c = self.tasks[name].container
                await engine.pulls.ensure(c.image_id or c.image, "never" if c.image_id else c.pull_policy)
            case Create():
                await self._create(self.tasks[name])
            case Start(id=ident):
                await engine.start(engine.containers.records[ident], generation=self.tasks[name].generation)

    async def _end(self, name: str, action: Stop | Restart | Remove) -> None:
        engine, record = self.engine, self.engine.containers.records[action.id]
        match action:
            case Restart():
                await engine.restart(record, generation=self.tasks[name].generation, slots=self._slots)
            case Stop():
                task = self.tasks.get(name)
                last = min(LAST_GRACE_S, record.container.stop_grace_s) if task and task.strict and self.lease.ended else None
                await stopping.stop(engine.context, record, grace_s=last)
            case Remove(replaced=replaced):
                if replaced:
                    self._inherit[name] = {} if name in self.tasks and self.tasks[name].renew else dict(record.anonymous)
                # containers in its namespaces end with it, and join its successor when the control plane says so
                ending = [record, *(u for u in sharing.users(engine.containers, record, *sharing.KINDS) if replaced and u.task)]
                with engine.containers.is_leaving(record):
                    await asyncio.gather(*(self._stop(one) for one in ending))
                    async with self._slots:
                        if record.id in engine.containers.records:
                            await engine.remove(record)

    async def _stop(self, record: Record) -> None:
        with contextlib.suppress(NotModifiedError):
            await stopping.stop(self.engine.context, record)

    async def _create(self, task: Task) -> None:
        c = task.container
        self._pulling.add(task.name)
        self._report(task.name)
        try:
            await self.engine.pulls.ensure(c.image_id or c.image, "never" if c.image_id else c.pull_policy)
        except ImageNotFoundError as error:
            raise AgentError(str(error)) from error
        finally:
            self._pulling.discard(task.name)
        base = Record(
            id="",
            name="",
            container=c,
            created="",
            task=task.name,
            stack=task.stack,
            service=task.service,
            digest=digest(c),
            generation=task.generation,
            replaces=task.name in self._inherit,
            anonymous=self._inherit.pop(task.name, {}),
        )
        creating.create(self.engine.context, c, name=task.container_name or task.name, record=base)

    # --- status ------------------------------------------------------------------------------------------------

    def _changed(self, record: Record) -> None:
        if record.task:
            self._report(record.task)

    def _report(self, name: str) -> None:
        status = self.status_of(name)
        for listen in self.listeners:
            listen(status)

    def status_of(self, name: str) -> TaskStatus:
        """The status of the task *name*."""
        record = self.record(name)
        error = self._errors.get(name, "")
        if record is None:
            state = "failed" if error else "pulling" if name in self._pulling else "pending"
            return TaskStatus(task=name, state=state, error=error)  # type: ignore[arg-type]
        return _status(self.engine, record, self.tasks.get(name), error)

    def status(self) -> NodeStatus:
        """The status of the manifest: of each task, network and volume, and problems."""
        names = set(self.tasks) | {r.task for r in self.engine.containers.records.values() if r.task}
        return NodeStatus(
            revision=self.manifest.revision,
            tasks=tuple(self.status_of(n) for n in sorted(names)),
            networks=tuple(sorted(self.engine.networks.table.all)),
            volumes=tuple(sorted(self.engine.volumes.all)),
            problems=tuple(self.engine.networks.notes),
        )

    async def close(self) -> None:
        """End the workers and close the engine."""
        for worker in list(self._workers.values()):
            worker.cancel()
        await asyncio.gather(*self._workers.values(), return_exceptions=True)
        await self.engine.close()
