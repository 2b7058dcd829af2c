"""A simulated node: its containers, and the agent that makes them what its manifest says."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.contract.container import digest
from agent.contract.manifest import Delta, Manifest, apply_delta
from agent.contract.status import NodeInfo, TaskStatus
from agent.contract.task import LAST_GRACE_S, Task
from agent.engine.boot_fence import BootFence
from agent.engine.lease_fence import LeaseFence
from agent.engine.membership import Membership
from agent.errors import AgentError
from agent.reconcile import Create, ObservedContainer, Prepare, Remove, Restart, Start, Stop, next_action
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from tests.simulator.world import World

INFO = NodeInfo(
    hostname="sim", arch="amd64", cpus=8.0, memory=32 << 30, drivers=("bridge", "overlay"), has_underlay_address=True
)


class Container(msgspec.Struct, kw_only=True):
    """What the node's disk has of a container, and whether it runs."""

    id: str
    task: Task
    state: str = "created"
    stopped: bool = False
    generation: int = 0
    started: str = ""
    restarts: int = 0
    exit_code: int | None = None


class SimNode:
    """One machine. Its manifest and its containers outlive a crash."""

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world, self.name = world, name
        self.up = False
        self.containers: dict[str, Container] = {}
        self.listeners: dict[object, Callable[[TaskStatus | None], None]] = {}
        self._marker = folder / f"{name}.boot"
        self.manifest = Manifest()
        self.tasks: dict[str, Task] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._count = 0
        self.boot_fence = BootFence(self._marker, world.loop.time)
        self.lease = LeaseFence(world.loop.time)
        self.membership = Membership(folder / f"{name}.left")

    # --- power -------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on: an agent starts, and begins with what is on the disk."""
        self.up = True
        self._marker.unlink(missing_ok=True)
        self.boot_fence = BootFence(self._marker, self.world.loop.time)
        self.lease = LeaseFence(self.world.loop.time)
        self.tasks = {t.name: t for t in self.manifest.tasks}
        self.boot_fence.close_after_boot(self.manifest)
        for container in self.containers.values():
            if container.state in ("running", "restarting"):  # as `recovery.py` has it
                container.state, container.exit_code = "exited", 255
                if container.task.container.restart == "always" and not container.stopped:
                    container.state = "restarting"
                    self._spawn(self._restart(container), f"restart {container.task.name}")
        self._spawn(self._keep_lease(), "lease")
        for name in {*self.tasks, *self.containers}:
            self._wake(name)

    def crash(self) -> None:
        """Cut its power."""
        self.up = False
        self.world.kill(f"node {self.name}")
        self._workers.clear()
        self._again.clear()
        self.listeners.clear()

    def _spawn(self, work: object, name: str) -> asyncio.Task[None]:
        return self.world.spawn(f"node {self.name}", work, name)

    # --- the agent ---------------------------------------------------------------------------------------------

    def apply(self, manifest: Manifest) -> None:
        """As `Converger.apply`: kept on disk, then work begins."""
        try:
            self.membership.check(manifest, self.manifest)
        except AgentError as error:
            raise RefusedError(str(error), 409) from None
        self.manifest = manifest
        before, self.tasks = self.tasks, {t.name: t for t in manifest.tasks}
        self.boot_fence.confirm(manifest.tasks)
        self.lease.taken_over()
        for name in {*before, *self.tasks, *self.containers}:
            self._wake(name)

    def change(self, delta: Delta) -> None:
        """Raises RefusedError where it is none of the manifest that is here."""
        try:
            manifest = apply_delta(self.manifest, delta)
        except ValueError as error:
            raise RefusedError(str(error), 409) from None
        self.apply(manifest)

    def leave(self, member: str) -> None:
        """Raises RefusedError where the node is another member by now."""
        if self.manifest.member != member:
            raise RefusedError("another member", 409)
        self.membership.leave(member)
        self.apply(Manifest())

    async def _keep_lease(self) -> None:
        ended = False
        while True:
            await asyncio.sleep(0.5)
            if self.lease.ended and not ended:
                for task in self.tasks.values():
                    if task.strict:
                        self._wake(task.name)
            ended = self.lease.ended

    def _wake(self, name: str) -> None:
        self._again.add(name)
        if name not in self._workers:
            self._workers[name] = self._spawn(self._work(name), f"converge {name}")

    async def _work(self, name: str) -> None:
        try:
            while name in self._again:
                self._again.discard(name)
                while (action := self._next(name)) is not None:
                    if isinstance(action, Create | Start | Restart) and self.boot_fence.holds(name):
                        await self.boot_fence.wait(name)
                        continue
                    await self._do(name, action)
                self._report(name)
        finally:
            self._workers.pop(name, None)

    def _next(self, name: str) -> object:
        task, found = self.tasks.get(name), self.containers.get(name)
        if task and task.strict and self.lease.ended:
            task = msgspec.structs.replace(task, desired="stopped")
        seen = None
        if found:
            seen = ObservedContainer(
                id=found.id,
                digest=digest(found.task.container),
                generation=found.generation,
                state=found.state,
                stopped=found.stopped,
            )
        return next_action(task, seen, image_present=True)

    async def _do(self, name: str, action: object) -> None:
        rng = self.world.rng
        match action:
            case Prepare():
                await asyncio.sleep(0.1)
            case Create():
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                if task := self.tasks.get(name):
                    self._count += 1
                    ident = f"{self.name}-{self._count}"
                    self.containers[name] = Container(id=ident, task=task, generation=task.generation)
            case Start() | Restart():
                if container := self.containers.get(name):
                    await self._stop(container)
                    await asyncio.sleep(rng.uniform(0.05, 1.0))
                    self._run(container)
            case Stop():
                if container := self.containers.get(name):
                    container.stopped = True
                    await self._stop(container)
            case Remove():
                if container := self.containers.get(name):
                    container.stopped = True
                    await self._stop(container)
                    self.containers.pop(name, None)
        self._report(name)

    async def _stop(self, container: Container) -> None:
        if container.state == "running":
            await asyncio.sleep(self.world.rng.uniform(0, LAST_GRACE_S if container.task.strict else 2.0))
        if container.state in ("running", "restarting"):
            container.state, container.exit_code = "exited", 0

    def _run(self, container: Container) -> None:
        task = self.tasks.get(container.task.name, container.task)
        container.generation = task.generation
        container.stopped = False
        container.state, container.exit_code = "running", None
        container.started = datetime.datetime.fromtimestamp(self.world.loop.wall(), datetime.UTC).isoformat()
        self.world.began(self.name, container)

    def die(self, container: Container) -> None:
        """Its process ends by itself; its restart policy starts it again, unless it was to stop."""
        if container.stopped:
            container.state, container.exit_code = "exited", 1
            self._report(container.task.name)
            return
        container.state, container.exit_code = "restarting", 1
        container.restarts += 1
        self._report(container.task.name)
        self._spawn(self._restart(container, 0.2), f"restart {container.task.name}")

    async def _restart(self, container: Container, pause_s: float = 0.0) -> None:
        if not await self.boot_fence.wait(container.task.name):
            return
        await asyncio.sleep(pause_s)
        if container.state == "restarting" and self.containers.get(container.task.name) is container:
            self._run(container)
            self._report(container.task.name)

    # --- what it says ------------------------------------------------------------------------------------------

    def _report(self, name: str) -> None:
        for listen in list(self.listeners.values()):
            listen(self.status_of(name))

    def status_of(self, name: str) -> TaskStatus:
        """What has become of task *name*."""
        found = self.containers.get(name)
        if found is None:
            return TaskStatus(task=name, state="pending")
        return TaskStatus(
            task=name,
            state=found.state,  # type: ignore[arg-type]
            container=found.id,
            digest=digest(found.task.container),
            generation=found.generation,
            exit_code=found.exit_code,
            restarts=found.restarts,
            started=found.started,
        )

    def statuses(self) -> list[TaskStatus]:
        """Of all tasks and containers."""
        return [self.status_of(n) for n in sorted({*self.tasks, *self.containers})]
