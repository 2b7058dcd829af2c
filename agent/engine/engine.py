"""The engine: the life of every container of this node.

created → running → exited, by way of `start`, `stop`, a process that ends, and restart policies. Each container has one
lock; what outlives the agent (record, mounts, namespace, conmon) is found again by `recovery`, and what nobody owns
is swept there. `starting` is the way to its first instruction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from agent import files, mounts
from agent.build.builder import Builder
from agent.containers import cgroups, runtime, syslog, userns
from agent.containers.bundle import resources
from agent.containers.rotation import Rotation, RotationLimits
from agent.containers.runtime import Runtime
from agent.contract.container import Attachment, Container
from agent.contract.failpoints import failpoint
from agent.contract.manifest import FileContent
from agent.contract.volume import Volume
from agent.engine import etcfiles, health, hooks, prepare, sharing, starting
from agent.engine.events import Events
from agent.engine.networks import translate
from agent.engine.networks.networks import Networks
from agent.engine.networks.table import network_id
from agent.engine.records import Record, labels, now, save
from agent.errors import (
    AgentError,
    BadRequestError,
    ConflictError,
    ImageNotFoundError,
    NotFoundError,
    NotModifiedError,
    user_message,
)
from agent.images import pull as puller
from agent.images.auth import Credentials
from agent.images.reference import parse
from agent.images.sizes import Sizes
from agent.images.store import Image, ImageStore
from agent.images.types import RunConfig
from agent.paths import Paths
from agent.settings import Settings
from agent.volumes.migration import VolumeMigration
from agent.volumes.volumes import Volumes

RESTART_MAX_S = 60.0
RESTART_RESET_S = 10.0
MONITOR_EXIT_TIMEOUT_S = 5.0
JOURNAL = Path("/run/systemd/journal/socket")
log = logging.getLogger(__name__)


class PendingAttach:
    """Somebody who wants a container's streams from their first byte: the start waits for them."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.failed = False
        """Set before *ready* where the start came to nothing: there are no streams."""
        self.connected = asyncio.Event()


class Engine:
    """One node's containers, images, volumes and networks."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        for directory in (paths.root, paths.run, paths.bundles):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        # images and containers hold set-user-ID programs: no other user of this host may reach them (CVE-2021-41091)
        for directory in (paths.images, paths.layers, paths.containers, paths.volumes):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        self.paths = paths
        self.settings = settings
        self.images = ImageStore(paths, settings.limits)
        self.images.users = self.images_in_use
        self.sizes = Sizes(self.images)
        self.volumes = Volumes(paths)
        self.moving = VolumeMigration(self.volumes, paths.run)
        self.networks = Networks(paths, settings)
        self.runtime = Runtime(paths, runtime.choose(settings.runtime, paths.containers), settings.runtimes)
        self.events = Events(paths.run / "events.jsonl")
        self.networks.revived = lambda why: self.events.emit(
            "daemon", "restart", "dataplane", {"name": "dataplane", "reason": why}
        )
        self.rotation = Rotation()
        self.syslog = syslog.SyslogForwarder()
        self.records: dict[str, Record] = {}
        self.manifest_volumes: dict[str, Volume] = {}
        self.contents: dict[str, FileContent] = {}
        self.changed: Callable[[Record], None] = lambda _: None
        self.cgroup2 = cgroups.unified()
        self.not_listening: set[str] = set()
        """Containers whose programs do not listen yet where they are going to."""
        self.attaching: dict[str, list[PendingAttach]] = {}
        self.builder = Builder(self)
        self.committed: dict[str, Record] = {}
        """Images that were made of containers since this agent runs, by ID, with the container."""
        self.stuck: set[str] = set()
        """Containers that were to go by themselves, and cannot."""
        self.waiting: set[str] = set()
        """Containers that are to run again once those whose namespaces they share do."""
        self.coming_back: set[str] = set()
        """Containers that were stopped to be started again at once."""
        self._following: set[asyncio.Task[None]] = set()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        """Those that somebody holds or waits for."""
        self.watchers: dict[str, asyncio.Task[None]] = {}
        """By the container's ID, the task that waits for its end, or that starts it again."""
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._pulls: dict[str, asyncio.Task[Image]] = {}
        self._pull_listeners: dict[str, list[puller.Progress]] = {}

    # --- looking -----------------------------------------------------------------------------------------------

    def directory(self, record: Record) -> Path:
        """What outlives a reboot: the record, the writable layer, the log."""
        return self.paths.containers / record.id

    def bundle(self, record: Record) -> Path:
        """What does not: the OCI bundle, the mounted root, conmon's files, secrets in the clear."""
        return self.paths.bundles / record.id

    def cgroup_parent(self, record: Record) -> str:
        """The cgroup that the container's own lies in, from the root of each hierarchy."""
        own = record.container.cgroup_parent.strip("/")
        return f"/{own}" if own else self.paths.cgroup_parent

    def find(self, name: str) -> Record:
        """By name, ID, or the beginning of one. Raises NotFoundError."""
        name = name.lstrip("/")
        hits = [r for r in self.records.values() if r.name == name or r.id == name]
        hits = hits or [r for r in self.records.values() if len(name) >= 2 and r.id.startswith(name)]
        if not hits:
            raise NotFoundError(f"No such container: {name}")
        if len(hits) > 1:
            raise BadRequestError(f"{len(hits)} containers' IDs begin with {name}: give more digits")
        return hits[0]

    def image_config(self, record: Record) -> RunConfig:
        """The run configuration of the record's image. Raises ImageError if the image is gone."""
        return self.images.image(record.image_id).config.config or RunConfig()

    def healthcheck_of(self, record: Record) -> object:
        """The health check of the container or else of its image; None if there is none or it cannot be read."""
        try:
            return prepare.healthcheck(record, self.image_config(record))
        except AgentError:
            return None

    def networks_gateway(self, record: Record) -> str:
        """The host as *record* reaches it, for `host-gateway`."""
        endpoint = next((e for e in record.endpoints if e.default), None)
        if endpoint is None:
            return "127.0.0.1"
        network = self.networks.table.get(endpoint.network)
        return translate.gateway(network, network.subnets[0])

    def lock(self, record: Record) -> asyncio.Lock:
        """The lock of the container's state: its holder starts, stops, mounts or removes it."""
        return self._locks.setdefault(record.id, asyncio.Lock())

    def transition(self, record: Record, action: str = "", **fields: object) -> None:
        """Change a record, keep it, and tell who listens."""
        for key, value in fields.items():
            setattr(record, key, value)
        try:
            save(self.directory(record), record)
        except OSError as error:
            if action == "create":
                raise
            # what became of a container must be acted on; the next agent finds it out again
            log.warning("container %s: what became of it is not written down: %s", record.name, user_message(error))
        if action:
            self.tell(record, action, {"exitCode": str(record.exit_code)} if action == "die" else {})
        self.changed(record)

    def note(self, record: Record, **fields: object) -> None:
        """Change of a record what is nobody's event."""
        self.transition(record, "", **fields)

    def tell(self, record: Record, action: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """An event of a container, with what every one of them says of it."""
        own = {"image": record.image or record.container.image, "name": record.name}
        self.events.emit("container", action, record.id, {**labels(record), **own, **more})

    def tell_network(self, record: Record, verb: str, network: str) -> None:
        """A container came onto a network, or left it."""
        known = self.networks.table.all.get(network)
        self.events.emit(
            "network",
            verb,
            network_id(network),
            {"container": record.id, "name": network, "type": known.driver if known else "bridge"},
        )

    # --- images ------------------------------------------------------------------------------------------------

    async def pull(
        self,
        name: str,
        progress: puller.Progress = lambda _: None,
        credentials: Credentials | None = None,
    ) -> Image:
        """Pull *name*; callers who ask for the same image in the same name at the same time share one pull."""
        reference = parse(name)
        key = f"{reference.name}@{reference.digest} {credentials.basic if credentials else ''}"
        self._pull_listeners.setdefault(key, []).append(progress)
        if key not in self._pulls:

            def tell(event: dict[str, object]) -> None:
                for listener in self._pull_listeners.get(key, ()):
                    listener(event)

            task = asyncio.create_task(puller.pull(self.images, reference, self.settings, tell, credentials))
            self._pulls[key] = task
            task.add_done_callback(lambda _: (self._pulls.pop(key, None), self._pull_listeners.pop(key, None)))
        image = await asyncio.shield(self._pulls[key])
        self.events.emit("image", "pull", reference.familiar, {"name": reference.familiar})
        return image

    async def ensure_image(self, name: str, policy: str = "missing") -> Image:
        """The image on this node, pulled where the policy says so."""
        if policy != "always":
            try:
                image = self.images.find(name)
                if self.images.is_complete(image):
                    return image
            except ImageNotFoundError:
                if policy in ("never", "build"):
                    raise ImageNotFoundError(f"image {name} is not on this node and pull_policy is {policy}") from None
        return await self.pull(name)

    # --- life --------------------------------------------------------------------------------------------------

    async def create(
        self,
        container: Container,
        *,
        name: str = "",
        record: Record | None = None,
        auto_remove: bool = False,
        asked: dict[str, Any] | None = None,
    ) -> Record:
        """A new container, not started. Raises ConflictError where the name is taken, and what images and networks raise."""
        ident = os.urandom(32).hex()
        name = name or f"container-{ident[:8]}"
        if any(r.name == name for r in self.records.values()):
            raise _taken(name, next(r for r in self.records.values() if r.name == name))
        image = self.images.find(container.image_id or container.image)
        base = record or Record(id="", name="", container=container, created="")
        made = msgspec.structs.replace(
            base,
            id=ident,
            name=name,
            container=container,
            created=now(),
            image=container.image,
            image_id=image.digest,
            auto_remove=auto_remove,
            asked=asked or {},
        )
        self.images.mark_used(image.digest)
        self.networks.endpoints.assign(made, free=False)
        directory = self.paths.containers / ident
        failpoint("container.record")
        try:
            for part in ("", "upper", "work"):
                (directory / part).mkdir(mode=0o711 if not part else 0o755)
            self.records[ident] = made
            self.transition(made, "create")
        except OSError:  # a full disk
            self.records.pop(ident, None)
            files.remove_tree(directory)
            raise
        return made

    async def start(self, record: Record, *, generation: int | None = None) -> None:
        """Run a created or exited container. Raises AgentError; the record then says why it did not start.

        *generation* is the ordered restart that this start answers: the record says so from its first moment on."""
        async with self.lock(record):
            if record.state == "paused":
                raise ConflictError("cannot start a paused container, try unpause instead")
            if record.running:
                raise NotModifiedError(f"container {record.name} runs already")
            # kept in memory alone: a start that is cut off leaves a record that says "created" or "exited", and
            # the next agent removes what this one began
            for key, value in {
                "state": "starting",
                "stopped": False,
                "error": "",
                "exit_code": None,
                "health": "",
                "oom_killed": False,
            }.items():
                setattr(record, key, value)
            record.generation = record.generation if generation is None else generation
            failed: BaseException
            self.changed(record)
            try:
                await starting.start(self, record)
            except BaseException as error:
                await asyncio.shield(self._abort_start(record))
                self.transition(
                    record,
                    state="failed",
                    ends=record.ends + 1,
                    error=user_message(error),
                    exit_code=starting.status_of(error),
                    finished=now(),
                    process=None,
                    monitor=None,
                )
                self._wake(record)  # who waits for its end waits no more
                for one in self.attaching.pop(record.id, ()):
                    one.failed = True
                    one.ready.set()
                failed = error
            else:
                if self.waiting:
                    task = asyncio.create_task(sharing.follow(self, record))
                    self._following.add(task)
                    task.add_done_callback(self._following.discard)
                return
        if record.auto_remove:
            await asyncio.shield(self._remove_itself(record))
        raise failed

    def userns_path(self, record: Record) -> Path:
        """Where a user namespace of *record*'s own is kept alive."""
        return self.paths.userns / record.id[:16]

    def mount_root(self, record: Record) -> Path:
        """The container's root, its image's layers below its own writable one; mounted already is fine."""
        directory, bundle = self.directory(record), self.bundle(record)
        rootfs = bundle / "rootfs"
        rootfs.mkdir(parents=True, exist_ok=True)
        bundle.chmod(0o700)
        failpoint("container.mount")
        if not mounts.is_mounted(rootfs):
            lower = self.images.lower(self.images.image(record.image_id))
            mounts.overlay(rootfs, lower, directory)
        return rootfs

    def log_limits(self, record: Record) -> RotationLimits:
        """How large its log may grow. Raises BadRequestError."""
        options = dict(record.container.log_options)
        if record.container.log_driver == "local":
            options = {"max-size": "20m", "max-file": "5", **options}
        files = options.get("max-file", "1")
        if not files.isdigit() or not 0 < int(files) < 1000:
            raise BadRequestError(f"log option max-file {files!r}: a number from 1")
        return RotationLimits(_size(options.get("max-size", "") or self.settings.log_max_size), int(files))

    def syslog_target(self, record: Record) -> syslog.SyslogAddress | None:
        """The syslog server that gets the container's lines, None for none. Raises BadRequestError."""
        c = record.container
        if c.log_driver == "journald" and not JOURNAL.exists():
            raise BadRequestError(f"logging driver journald: there is no journal on this node ({JOURNAL})")
        return syslog.SyslogAddress.of(dict(c.log_options), record.name) if c.log_driver == "syslog" else None

    def watch(self, record: Record) -> None:
        """Ship and rotate the log of a running container, and wait for its end."""
        with contextlib.suppress(AgentError):
            if target := self.syslog_target(record):
                self.syslog.add(record.id, self.directory(record) / "log", target, lambda: not record.running)
        with contextlib.suppress(AgentError):
            log, ctl = self.directory(record) / "log", self.bundle(record) / "ctl"
            self.rotation.add(record.id, log, ctl, self.log_limits(record))
        task = asyncio.create_task(self._watched(record), name=f"watch {record.name}")
        self.watchers[record.id] = task

    async def _watched(self, record: Record) -> None:
        """Wait for the end of a container, keep its health, and do what its restart policy says."""
        check = self.healthcheck_of(record)
        pulse = asyncio.create_task(health.watch(self, record, check)) if check else None
        if record.id in self.not_listening:
            pulse = asyncio.create_task(health.listen(self, record))
        try:
            assert record.monitor
            assert record.process
            await runtime.ended(record.monitor)
            await runtime.ended(record.process)
        finally:
            if pulse:
                pulse.cancel()
        await self._exited(record)

    async def _exited(self, record: Record) -> None:
        bundle = self.bundle(record)
        self.rotation.drop(record.id)
        self.not_listening.discard(record.id)
        code = runtime.exit_code(bundle, record.id)
        oom = runtime.was_oom_killed(bundle)
        if not sharing.users(self, record):
            self.networks.endpoints.release(record)
        uptime = record.process.age_s if record.process else 0.0
        orphaned = await sharing.dies_with_its_owner(self, record, code if code is not None else 255)
        again = orphaned or self.restarts_after(record, code if code is not None else 255)
        self.transition(
            record,
            "die",
            ends=record.ends + 1,
            state="restarting" if again else "exited",
            exit_code=code if code is not None else 255,
            oom_killed=oom,
            finished=now(),
            process=None,
            monitor=None,
            health="" if not record.health else "unhealthy",
        )
        for endpoint in record.endpoints:
            self.tell_network(record, "disconnect", endpoint.network)
        if record.oom_killed:
            self.tell(record, "oom")
        self._wake(record)  # its end is known before the host is tidy: that takes longer than many a container runs
        async with self.lock(record):
            if record.state in ("restarting", "exited"):
                await self.release(record)
        if again:
            c = record.container
            quick = 0 if uptime >= (c.restart_window_s or RESTART_RESET_S) else record.restarts
            if not orphaned:
                await asyncio.sleep(c.restart_delay_s or min(RESTART_MAX_S, 0.1 * 2 ** min(quick, 10)))
            if sharing.waits(self, record):
                self.waiting.add(record.id)
                return
            if record.state == "restarting" and not record.stopped and record.id in self.records:
                record.restarts = quick + 1
                with contextlib.suppress(AgentError, OSError):
                    await self.start(record)
        elif record.auto_remove:
            await self._remove_itself(record)

    async def _remove_itself(self, record: Record) -> None:
        """What `auto_remove` asks for; one that is not to be had away is noted, so that nobody waits for it."""
        try:
            await self.remove(record, volumes=True)
        except (AgentError, OSError) as error:
            log.warning("container %s cannot be removed: %s", record.name, user_message(error))
            self.stuck.add(record.id)
            self._wake(record)

    def restarts_after(self, record: Record, code: int) -> bool:
        """Whether the restart policy starts the container again after it ended with *code*."""
        policy, limit = record.container.restart, record.container.restart_max
        if record.stopped or record.auto_remove:
            return False
        wanted = policy in ("always", "unless-stopped", "any") or (policy == "on-failure" and code != 0)
        return wanted and (not limit or record.restarts < limit)

    async def release(self, record: Record, *, removed: bool = False) -> None:
        """Take away all that a running container holds on the host: runtime state, namespace, links, root mount.
        Namespaces that others are in are left to them, unless it is *removed*."""
        await self.runtime.delete(record.id, self.cgroup_parent(record))
        if removed or not sharing.users(self, record):
            await self.let_go(record)
        failpoint("container.unmount")
        images = [prepare.image_point(m) for m in record.container.mounts if m.kind == "image"]
        for point in (prepare.SECRETS, prepare.ETC, *images, "rootfs"):
            mounts.unmount(self.bundle(record) / point)
        if (mapped := self.bundle(record) / prepare.MAPPED).is_dir():
            for inner in mounts.below(mapped):
                mounts.unmount(inner)
        await sharing.leave(self, record)

    async def let_go(self, record: Record) -> None:
        """Let go of the namespaces of a container that does not run."""
        with contextlib.suppress(AgentError):
            await self.networks.detach(record)
        userns.delete(self.userns_path(record))
        record.ids = 0

    async def _abort_start(self, record: Record) -> None:
        """Take away what a start that failed had made; its monitor must not note an end when the next one runs."""
        await self.release(record)
        if record.monitor:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MONITOR_EXIT_TIMEOUT_S):
                    await runtime.ended(record.monitor)

    def _wake(self, record: Record) -> None:
        for waiter in self._waiters.pop(record.id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, record: Record) -> int:
        """The exit code, once the container does not run any more."""
        while record.running or record.state in ("starting",):
            await self.wait_for_change(record)
        return record.exit_code or 0

    async def wait_for_change(self, record: Record) -> None:
        """Wait until the container starts, ends or goes."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(record.id, []).append(waiter)
        await waiter

    async def stop(self, record: Record, *, grace_s: float | None = None, number: int = 0, event: str = "stop") -> None:
        """Ask the container to end, and end it after its grace period. Its restart policy rests until `start`."""
        if not record.running:
            if record.state == "restarting":
                self.transition(record, state="exited", stopped=True)
                return
            self.transition(record, stopped=True)
            raise NotModifiedError(f"container {record.name} does not run")
        async with self.lock(record):
            await self._thaw(record)
            self.transition(record, state="stopping", stopped=True)
            grace = record.container.stop_grace_s if grace_s is None else grace_s
            number = number or self.stop_signal(record)
            failpoint("container.stop")
            failed = ""
            if record.container.pre_stop and grace > 0:
                try:
                    await hooks.run(self, record, "pre_stop", record.container.pre_stop, grace)
                except (AgentError, OSError) as error:  # it stops all the same, and the caller gets the error
                    failed = user_message(error)
                    self.transition(record, error=failed)  # known before the end is: whoever waits for that sees both
            try:
                if number == signal.SIGKILL:
                    raise TimeoutError
                if record.process:
                    self.tell(record, "kill", {"signal": str(number)})
                    record.process.signal(number)
                async with asyncio.timeout(grace):
                    await self.wait(record)
            except TimeoutError:
                self.tell(record, "kill", {"signal": str(int(signal.SIGKILL))})
                await self.kill_all(record)
                await self.wait(record)
            self.transition(record, event, state="exited", error=failed)

    async def shut_down(self) -> None:
        """The host goes down: every container ends by its own signal, hook and grace period, all at once.

        Records stay as they are: when the host is back it is as after a power cut, and what ran runs again."""
        for watcher in self.watchers.values():
            watcher.cancel()

        async def end(record: Record) -> None:
            await self._thaw(record)
            if record.container.pre_stop:
                with contextlib.suppress(AgentError, OSError):
                    await hooks.run(self, record, "pre_stop", record.container.pre_stop, record.container.stop_grace_s)
            assert record.process
            record.process.signal(self.stop_signal(record))
            deadline = asyncio.get_running_loop().time() + record.container.stop_grace_s
            while record.process.alive() and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.05)
            if record.process.alive():
                await self.kill_all(record)

        running = [r for r in self.records.values() if r.process and r.process.alive()]
        await asyncio.gather(*(end(r) for r in running), return_exceptions=True)

    def stop_signal(self, record: Record) -> int:
        """The number of the signal that stops the container: its own, its image's, or SIGTERM.

        Raises BadRequestError if its own is unknown, ImageError if the image is gone."""
        if record.container.stop_signal:
            return signal_number(record.container.stop_signal)
        try:
            return signal_number(self.image_config(record).stop_signal or "SIGTERM")
        except BadRequestError:
            return signal.SIGTERM  # an image that names no signal is not for ever: its containers can be stopped

    async def kill_all(self, record: Record) -> None:
        """SIGKILL; the kernel ends every process of the PID namespace with its init."""
        if record.process and not record.container.pid_mode:
            record.process.signal(signal.SIGKILL)
        else:
            with contextlib.suppress(AgentError):
                await self.runtime.signal(record.id, signal.SIGKILL)

    async def kill(self, record: Record, number: int) -> None:
        """Send a signal. One that ends the container leaves its restart policy in force, as in Docker."""
        if not record.running or not record.process:
            raise ConflictError(f"Cannot kill container: {record.name}: Container {record.id} is not running")
        if number in (signal.SIGKILL, self.stop_signal(record)):
            await self._thaw(record)
        self.tell(record, "kill", {"signal": str(int(number))})
        if number == signal.SIGKILL:
            record.stopped = True
            await self.kill_all(record)
            await self.wait(record)
        else:
            record.process.signal(number)

    async def restart(self, record: Record, *, grace_s: float | None = None, generation: int | None = None) -> None:
        """Stop a container, if it runs, and start it; *grace_s* as in `stop`. Raises AgentError."""
        self.coming_back.add(record.id)
        try:
            with contextlib.suppress(NotModifiedError):
                await self.stop(record, grace_s=grace_s)
            await self.start(record, generation=generation)
        finally:
            self.coming_back.discard(record.id)
        self.transition(record, "restart")

    async def pause(self, record: Record) -> None:
        """Freeze a running container. Raises ConflictError if it does not run."""
        if record.state != "running":
            why = "already paused" if record.state == "paused" else "not running"
            raise ConflictError(f"Container {record.id} is {why}")
        await self.runtime.pause(record.id)
        self.transition(record, "pause", state="paused")

    async def resume(self, record: Record) -> None:
        """Thaw a paused container. Raises ConflictError if it is not paused."""
        if record.state != "paused":
            raise ConflictError(f"Container {record.id} is not paused")
        await self.runtime.resume(record.id)
        self.transition(record, "unpause", state="running")

    async def _thaw(self, record: Record) -> None:
        """Before a container is to end: a paused one takes no signal, on cgroup v1 not even SIGKILL."""
        if record.state == "paused":
            with contextlib.suppress(AgentError):  # one that was let run behind our back
                await self.resume(record)

    def rename(self, record: Record, name: str) -> None:
        """Raises ConflictError where *name* is taken."""
        if other := next((r for r in self.records.values() if r.name == name), None):
            raise _taken(name, other)
        before = record.name
        self.transition(record, name=name)
        self.tell(record, "rename", {"oldName": f"/{before}"})

    async def update(self, record: Record, fields: dict[str, Any]) -> None:
        """Change limits and restart policy; *fields* are those of a Container. Raises AgentError where the kernel refuses."""
        async with self.lock(record):
            changed = msgspec.structs.replace(record.container, **fields)
            if record.running:
                await self.runtime.update(record.id, resources(changed, record.notes, cgroup2=self.cgroup2))
            self.transition(record, "update", container=changed)

    async def connect(self, record: Record, attachment: Attachment, links: tuple[tuple[str, str], ...] = ()) -> None:
        """Put a container on one network more, with *links* as a Container has them. Raises AgentError."""
        async with self.lock(record):
            self._movable(record)
            if links:
                own_links = (*record.container.links, *links)
                self.transition(record, container=msgspec.structs.replace(record.container, links=own_links))
            own = record.container.attachments or tuple(Attachment(network=e.network) for e in record.endpoints)
            await self.networks.connect(record, attachment)
            name = self.networks.table.get(attachment.network).name
            self._attach(record, (*own, msgspec.structs.replace(attachment, network=name)), "connect", name)

    async def disconnect(self, record: Record, name: str) -> None:
        """Take a container off a network. Raises AgentError."""
        async with self.lock(record):
            self._movable(record)
            network = self.networks.table.get(name)
            own = record.container.attachments or tuple(Attachment(network=e.network) for e in record.endpoints)
            await self.networks.disconnect(record, network)
            rest = tuple(a for a in own if self.networks.table.get(a.network).name != network.name)
            self._attach(record, rest, "disconnect", network.name)

    def readdress(self, record: Record, container: Container, name: str) -> None:
        """Give a running container the addresses that *container* has; the next pass of the networks makes it so."""
        self.networks.readdress(record, container)
        etcfiles.write(
            prepare.etc(self.bundle(record)),
            record,
            prepare.hostname(record),
            gateway=self.networks_gateway(record),
            shared_host_network=False,
        )
        self.transition(record, container=container, digest=name)

    def _movable(self, record: Record) -> None:
        mode = record.container.network_mode
        if record.task:
            raise ConflictError(
                f"container {record.name} is a task of stack {record.stack}: its file says which networks it is on"
            )
        left = mode == "none" and record.asked.get("HostConfig", {}).get("NetworkMode", mode) != mode
        if mode == "none" and not left:
            raise BadRequestError(
                "container cannot be connected to multiple networks with one of the networks in private "
                f"(none) mode: {record.name} has network mode none"
            )
        if mode == "host" or ":" in mode:
            raise BadRequestError(
                "container sharing network namespace with another container or host cannot be connected to "
                f"any other network: {record.name} has network mode {mode}"
            )

    def _attach(self, record: Record, attachments: tuple[Attachment, ...], verb: str, network: str) -> None:
        # off all networks it stays off all when started again, until it is put on one
        mode = "none" if not attachments else "" if record.container.network_mode == "none" else record.container.network_mode
        self.transition(record, container=msgspec.structs.replace(record.container, attachments=attachments, network_mode=mode))
        self.tell_network(record, verb, network)

    async def remove(self, record: Record, *, force: bool = False, volumes: bool = False) -> None:
        """Delete a container and its writable layer; its anonymous volumes too where asked."""
        if record.running or record.state == "restarting":
            if not force:
                raise ConflictError(
                    f"You cannot remove a running container {record.id}. Stop the container before "
                    "attempting removal or force remove"
                )
            with contextlib.suppress(NotModifiedError):
                await self.stop(record, grace_s=0, number=signal.SIGKILL, event="")
        async with self.lock(record):
            await self.release(record, removed=True)
            failpoint("container.remove")
            doomed = self.paths.containers / f"{record.id}.tmp"
            with contextlib.suppress(FileNotFoundError):
                self.directory(record).rename(doomed)
            self.records.pop(record.id, None)
            self.attaching.pop(record.id, None)
            self.stuck.discard(record.id)
            if watcher := self.watchers.pop(record.id, None):
                if watcher is not asyncio.current_task():
                    watcher.cancel()
            await asyncio.to_thread(files.remove_tree, self.bundle(record))
            await asyncio.to_thread(files.remove_tree, doomed)
            if volumes:
                for name in record.anonymous.values():
                    with contextlib.suppress(AgentError):
                        self.volumes.remove(name, self.users_of(name))
            self.volumes.release(self.users_of)
        self.tell(record, "destroy")
        self._wake(record)
        self.changed(record)

    def users_of(self, volume: str) -> list[str]:
        """The names of the containers that use *volume*."""
        return [
            r.name
            for r in self.records.values()
            if volume in r.anonymous.values() or any(m.kind == "volume" and m.source == volume for m in r.container.mounts)
        ]

    def images_in_use(self) -> set[str]:
        """Manifests of the images that containers are made of, or mount."""
        used = {r.image_id for r in self.records.values()}
        for mount in (m for r in self.records.values() for m in r.container.mounts if m.kind == "image"):
            with contextlib.suppress(AgentError):
                used.add(self.images.find(mount.image_id or mount.source).digest)
        return used

    async def close(self) -> None:
        """Let go without touching a container: they run on, and the next agent finds them."""
        self.rotation.close()
        await self.syslog.close()
        for watcher in self.watchers.values():
            watcher.cancel()
        await asyncio.gather(*self.watchers.values(), return_exceptions=True)
        await self.networks.close()


def _taken(name: str, other: Record) -> ConflictError:
    """In the words that tools look for."""
    return ConflictError(
        f'Conflict. The container name "/{name}" is already in use by container "{other.id}". You have to '
        "remove (or rename) that container to be able to reuse that name."
    )


def signal_number(name: str) -> int:
    """SIGTERM, TERM or 15. Raises BadRequestError."""
    if re.fullmatch(r"[0-9]{1,2}", name) and 0 < int(name) < 65:
        return int(name)
    text = name.upper().removeprefix("SIG")
    if (above := re.fullmatch(r"RTMIN\+([0-9]{1,2})", text)) and int(above[1]) <= signal.SIGRTMAX - signal.SIGRTMIN:
        return int(signal.SIGRTMIN) + int(above[1])
    try:
        return int(signal.Signals[f"SIG{text}"])
    except KeyError:
        raise BadRequestError(f"Invalid signal: {name[:40]}: it does not exist, see signal(7)") from None


def _size(text: str) -> int:
    """Docker's log sizes: 10m, 1g, or bytes; "" and -1 are no limit."""
    units = {"k": 10, "m": 20, "g": 30}
    text = text.strip().lower().removesuffix("b")
    if not text or text == "-1":
        return 0
    shift = units.get(text[-1], 0)
    digits = text[:-1] if shift else text
    if not digits.isdigit():
        raise BadRequestError(f"log size {text!r}: use a number with k, m or g")
    return int(digits) << shift
