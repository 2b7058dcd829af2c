"""The engine: the life of every container of this node.

created → running → exited, by `start`, `stop`, the end of its process, and restart policies. Each container has one lock.
`recovery` takes over the state that outlives the agent (record, mounts, namespace, conmon), and removes state that belongs to
no container. `starting` leads to a container's first instruction, `stopping` to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agent import files, quotas
from agent.containers import runtime
from agent.contract.failpoints import failpoint
from agent.contract.times import timestamp
from agent.disk_watch import DiskWatch
from agent.engine import releasing, restart_policy, sharing, starting, stopping
from agent.engine.boot_fence import BootFence
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.engine.supervision import Supervisor
from agent.errors import AgentError, ConflictError, NotModifiedError, user_message
from agent.images.sizes import Sizes
from agent.paths import Paths
from agent.reserve import DiskReserve, bound_memory
from agent.settings import Settings
from agent.volumes.backup import VolumeBackups
from agent.volumes.migration import VolumeMigration
from agent.volumes.use import VolumeUse

MONITOR_EXIT_TIMEOUT_S = 5.0
UNKNOWN_EXIT_CODE = 255
RELEASE_AGAIN_S, RELEASE_TRIES = 1.0, 30
"""After how many seconds what a container held is given back where files could not be opened, and how often for a start."""
log = logging.getLogger(__name__)


class Engine:
    """One node's containers, images, volumes and networks (*context*), and what follows from a start, an end, a removal."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        for directory in (paths.root, paths.run, paths.bundles):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        # images and containers hold set-user-ID programs: no other user of this host may reach them (CVE-2021-41091)
        for directory in (paths.images, paths.layers, paths.containers, paths.volumes):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        self.context = context = EngineContext(paths, settings)
        self.paths, self.settings, self.events = paths, settings, context.events
        self.containers, self.runtime = context.containers, context.runtime
        self.images, self.pulls = context.images, context.pulls
        self.volumes, self.networks = context.volumes, context.networks
        self.sizes = Sizes(self.images)
        self.volume_use = VolumeUse(self.volumes)
        self.moving = VolumeMigration(self.volumes, paths.run)
        self.backups = VolumeBackups(
            self.moving,
            paths.root / "backup",
            lambda name: stopping.pause(context, context.containers.find(name)),
            lambda name: stopping.resume(context, context.containers.find(name)),
        )
        self.committed: dict[str, Record] = {}
        """Images that were made of containers since this agent runs, by ID, with the container."""
        self.supervisor = Supervisor(context, self._ended)
        self.disk = DiskWatch(paths.root, lambda: self.disk_changed(), self._logs)
        self.reserve = DiskReserve(
            paths.root, settings.reserve.disk_bytes, self._written, self._evict, lambda: self.disk_changed()
        )
        self.disk_changed: Callable[[], None] = lambda: None
        """Called when this node's disk is full, and when it is not any more."""
        self.boot_fence = BootFence(paths.run / "boot", time.monotonic)
        self._following: set[asyncio.Task[None]] = set()
        self.networks.revived = lambda why: self.events.emit(
            "daemon", "restart", "dataplane", {"name": "dataplane", "reason": why}
        )

    def _logs(self) -> list[Path]:
        """The logs that containers write now."""
        return [self.paths.container(r.id) / "log" for r in self.containers.records.values() if r.running]

    def _written(self) -> dict[str, list[Path]]:
        """What each container that runs can write to on this node's disk."""
        found = {}
        for record in self.containers.records.values():
            if record.running:
                own = self.paths.container(record.id)
                names = [m.source for m in record.container.mounts if m.kind == "volume" and m.source and not m.read_only]
                volumes = [self.volumes.data(n) for n in (*names, *record.anonymous.values()) if not self.volumes.is_served(n)]
                found[record.id] = [own, *volumes]
        return found

    async def _evict(self, ident: str, reason: str) -> None:
        """Kill a container for the sake of the node; its policy starts it again once that is allowed."""
        record = self.containers.records.get(ident)
        if record is None or not record.running:
            return
        self.containers.tell(record, "evict", {"reason": reason})
        await stopping.kill_all(self.context, record)
        await self.containers.wait(record)
        if not record.running:
            self.containers.transition(record, error=reason)

    async def start(self, record: Record, *, generation: int | None = None) -> None:
        """Run a created or exited container. Raises AgentError; the record then has the reason.

        *generation* is the ordered restart that this start carries out; the record has it from the beginning."""
        async with self.containers.lock(record):
            if record.state == "paused":
                raise ConflictError("cannot start a paused container, try unpause instead")
            if record.running:
                raise NotModifiedError(f"container {record.name} runs already")
            # kept in memory only: a start that is cut off leaves a record that says "created" or "exited", and
            # the next agent removes what this one began
            record.state = "starting"
            record.stopped = record.oom_killed = False
            record.error = record.health = ""
            record.pre_stop_failed = False
            record.exit_code = None
            if generation is not None and generation != record.generation:
                record.restarts = record.attempts = 0  # the limit of the policy starts again
                record.generation = generation
            self.containers.changed(record)
            try:
                if self.reserve.problem:
                    raise AgentError(self.reserve.problem)
                await starting.start(self.context, record)
            except BaseException as error:  # raised again below, outside the lock
                await asyncio.shield(self._abort_start(record))
                self._start_failed(record, error)
                failed = error
            else:
                self.supervisor.watch(record)
                self._start_followers()
                if kept := self.settings.reserve.memory_bytes:
                    bound_memory(self.paths.cgroup_parent, kept)
                return
        if record.auto_remove:
            await asyncio.shield(self._remove_itself(record))
        raise failed

    async def _abort_start(self, record: Record) -> None:
        """Remove what a failed start has made, and wait for its monitor, which must not report an end after the next start."""
        for _ in range(RELEASE_TRIES):  # else its start would never come to an end
            try:
                await releasing.release(self.context, record)
                break
            except OSError as error:
                log.warning("container %s is not released yet: %s", record.name, error)
                await asyncio.sleep(RELEASE_AGAIN_S)
        if record.monitor:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(MONITOR_EXIT_TIMEOUT_S):
                    await runtime.ended(record.monitor)

    def _start_failed(self, record: Record, error: BaseException) -> None:
        self.containers.transition(
            record,
            state="failed",
            ends=record.ends + 1,
            error=user_message(error),
            exit_code=starting.status_of(error),
            finished=timestamp(),
            process=None,
            monitor=None,
        )
        self.containers.wake(record)
        for client in self.containers.attaching.pop(record.id, ()):
            client.failed = True
            client.ready.set()

    def _start_followers(self) -> None:
        """Start the containers that waited for an owner of their namespaces, which runs now."""
        if self.containers.waiting:
            task = asyncio.create_task(self._follow())
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _follow(self) -> None:
        for record in sharing.ready_to_follow(self.containers):
            try:
                await self.start(record)
            except (AgentError, OSError) as error:
                log.warning("container %s does not follow its owner: %s", record.name, user_message(error))

    async def _ended(self, record: Record) -> None:
        """The container's processes have ended: record that, release its resources, and apply its restart policy."""
        context, bundle = self.context, self.paths.bundle(record.id)
        exit_code = runtime.exit_code(bundle, record.id)
        code = UNKNOWN_EXIT_CODE if exit_code is None else exit_code
        oom = runtime.was_oom_killed(bundle)
        if not sharing.users(self.containers, record):
            self.networks.endpoints.release(record)
        uptime_s = record.process.age_s if record.process else 0.0
        orphaned = await sharing.dies_with_its_owner(self.containers, record, code)
        again = orphaned or restart_policy.restarts(record, code, uptime_s)
        self.containers.transition(
            record,
            "die",
            ends=record.ends + 1,
            state="restarting" if again else "exited",
            exit_code=code,
            oom_killed=oom,
            finished=timestamp(),
            process=None,
            monitor=None,
            health="" if not record.health else "unhealthy",
        )
        for endpoint in record.endpoints:
            context.tell_network(record, "disconnect", endpoint.network)
        if record.oom_killed:
            self.containers.tell(record, "oom")
        # waiters learn of the end before its resources are released, which takes longer than many containers run
        self.containers.wake(record)
        await self._release(record)
        if again:
            await self._start_again(record, uptime_s, at_once=orphaned)
        elif record.auto_remove:
            await self._remove_itself(record)

    async def _release(self, record: Record) -> None:
        """Give back what an ended container held; where files cannot be opened now, a moment later."""
        while True:
            async with self.containers.lock(record):
                if record.state not in ("restarting", "exited"):
                    return
                try:
                    return await releasing.release(self.context, record)
                except OSError as error:
                    log.warning("container %s is not released yet: %s", record.name, error)
            await asyncio.sleep(RELEASE_AGAIN_S)

    async def _start_again(self, record: Record, uptime_s: float, *, at_once: bool) -> None:
        """Start a container that ran for *uptime_s*, after its policy's delay or *at_once*, unless it is stopped meanwhile."""
        quick = restart_policy.quick_restarts(record.container, record.restarts, uptime_s)
        if not at_once:
            await asyncio.sleep(restart_policy.delay_s(record.container, quick))
        if sharing.waits(self.containers, record):
            self.containers.waiting.add(record.id)
            return
        if record.state == "restarting" and not record.stopped and record.id in self.containers.records:
            record.restarts = quick + 1
            record.attempts = 1 if restart_policy.lasted(record.container, uptime_s) else record.attempts + 1
            with contextlib.suppress(AgentError, OSError):
                await self.start(record)

    def recover_restart(self, record: Record) -> None:
        """Restart a container that ended while no agent ran, by its restart policy."""
        record.state = "restarting"
        self.supervisor.run(record, self._restart_recovered(record))

    async def _restart_recovered(self, record: Record) -> None:
        if not await self.boot_fence.wait(record.task):
            return  # it is another node's now, and is removed here
        if sharing.waits(self.containers, record):
            self.containers.waiting.add(record.id)
            return
        with contextlib.suppress(AgentError, OSError):
            await self.start(record)

    async def restart(
        self,
        record: Record,
        *,
        grace_s: float | None = None,
        generation: int | None = None,
        slots: contextlib.AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """Stop a container, if it runs, and start it while it has one of *slots*; *grace_s* as in `stopping.stop`. Raises
        AgentError."""
        self.containers.coming_back.add(record.id)
        try:
            with contextlib.suppress(NotModifiedError):
                await stopping.stop(self.context, record, grace_s=grace_s)
            async with slots or contextlib.nullcontext():
                await self.start(record, generation=generation)
        finally:
            self.containers.coming_back.discard(record.id)
        self.containers.transition(record, "restart")

    async def remove(self, record: Record, *, force: bool = False, volumes: bool = False) -> None:
        """Delete a container and its writable layer; its anonymous *volumes* too. Raises ConflictError if it runs, unless with
        *force*, which kills it first."""
        containers = self.containers
        if record.running or record.state == "restarting":
            if not force:
                raise ConflictError(
                    f"You cannot remove a running container {record.id}. Stop the container before "
                    "attempting removal or force remove"
                )
            with contextlib.suppress(NotModifiedError):
                await stopping.stop(self.context, record, grace_s=0, number=signal.SIGKILL, event="")
        async with containers.lock(record):
            await releasing.release(self.context, record, removed=True)
            failpoint("container.remove")
            doomed = self.paths.containers / f"{record.id}.tmp"
            with contextlib.suppress(FileNotFoundError):
                self.paths.container(record.id).rename(doomed)
            if record.container.storage_size:
                quotas.forget(doomed / "upper")
            containers.forget(record)
            self.supervisor.drop(record)
            await asyncio.to_thread(files.remove_tree, self.paths.bundle(record.id))
            await asyncio.to_thread(files.remove_tree, doomed)
            if volumes:
                for name in record.anonymous.values():
                    with contextlib.suppress(AgentError):
                        self.volumes.remove(name, containers.users_of_volume(name))
            self.volumes.release(containers.users_of_volume)
        containers.tell(record, "destroy")
        containers.wake(record)
        containers.changed(record)

    async def _remove_itself(self, record: Record) -> None:
        """Remove a container with `auto_remove`; one that cannot be removed is marked, so that no client waits for it."""
        try:
            await self.remove(record, volumes=True)
        except (AgentError, OSError) as error:
            log.warning("container %s cannot be removed: %s", record.name, user_message(error))
            self.containers.stuck.add(record.id)
            self.containers.wake(record)

    async def shut_down(self) -> None:
        """The host goes down: end every container, each by its own signal, hook and grace period."""
        self.supervisor.pause_all()
        await stopping.end_all(self.context)

    async def close(self) -> None:
        """Let go without touching a container: they run on, and the next agent finds them."""
        await self.supervisor.close()
        await self.volume_use.close()
        await self.networks.close()
        self.events.close()
