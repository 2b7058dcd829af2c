"""The way back: a snapshot becomes a volume, beside the one that there is or in its place, on its node or on another."""

from __future__ import annotations

import asyncio

import msgspec

from agent.contract.backup import BackupReport, Snapshot
from agent.contract.failpoints import failpoint
from agent.contract.task import Task
from agent.contract.volume import Volume
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.server import store_keys
from orchestrator.server.backups.sources import BackupSources
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, VolumeEvent
from orchestrator.server.lifecycle import change_desired_state
from orchestrator.server.records import ActRequest
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.volume_migration import find
from orchestrator.stackfile.units import show_bytes
from orchestrator.store.interface import Put


class RestoreRequest(WireStruct, frozen=True, kw_only=True):
    """*snapshot* is an ID or latest. *into* names a new volume for it, "" is the one that it is of; *node* is where that comes
    to be, "" is where it was. With *stop*, who uses the volume is stopped, and started when it is back."""

    snapshot: str = "latest"
    into: str = ""
    node: str = ""
    stop: bool = False


class VolumeRestorer:
    """Brings volumes back. Until the last step, a change of names on the node, nothing of what there is is touched."""

    def __init__(self, dispatcher: Dispatcher, rollouts: RolloutManager, sources: BackupSources) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._rollouts, self._sources = rollouts, sources

    async def snapshots(self, name: str) -> list[Snapshot]:
        """The snapshots of volume *name*, the oldest first. Raises RefusedError."""
        volume = find(self._state.volumes, name)
        node = volume.node if volume.node in self._cluster.ready else self._cluster.local
        return list((await self._sources.ask(node, "snapshots", volume)).snapshots)

    async def restore(self, name: str, request: RestoreRequest, emit: Emit) -> list[Failure]:
        """Bring a snapshot of volume *name* back. Returns the users that do not come up again. Raises RefusedError."""
        volume = find(self._state.volumes, name)
        if volume.shared and not request.into and not volume.node:
            raise RefusedError(f"volume {volume.name} ({volume.driver}) lies on a server: bring it back beside, with --as", 409)
        node = request.node or volume.node
        if not node:
            raise RefusedError(f"volume {volume.name} is on no node yet: choose one with --node", 409)
        if request.into:
            return await self._beside(volume, node, request, emit)
        async with self._state.lock(f"volume {volume.name}").hold("volume restore", emit):
            users = [t for t in self._sources.users(volume) if t.stack in self._state.stacks]
            self._check(volume, users, stop=request.stop)
            report = await self._sources.ask(node, "restore", volume, snapshot=request.snapshot)
            # the client may go away: what was stopped is started all the same
            return await asyncio.shield(self._replace(volume, node, users, report, emit))

    async def _replace(self, volume: Volume, node: str, users: list[Task], report: BackupReport, emit: Emit) -> list[Failure]:
        failures: list[Failure] = []
        try:
            await self._stop(users, emit)
            await self._take_place(volume, node, emit, report)
        finally:
            for stack in sorted({t.stack for t in users}):
                failures += await self._rollouts.redeploy(stack, emit)
        return failures

    async def _beside(self, volume: Volume, node: str, request: RestoreRequest, emit: Emit) -> list[Failure]:
        if request.into in self._state.volumes or await self._has(node, request.into):
            raise RefusedError(f"there is a volume {request.into} already: choose another name", 409)
        report = await self._sources.ask(node, "restore", volume, snapshot=request.snapshot, into=request.into)
        await self._commit(
            node,
            msgspec.structs.replace(volume, name=request.into, stack="", key="", driver="local", options=()),
            replace=False,
        )
        emit(_event(request.into, volume, node, report))
        return []

    async def _has(self, node: str, name: str) -> bool:
        """Whether *node* has a volume *name*, which need not be of a stack."""
        try:
            await self._cluster.get(node).client.call("GET", f"/volumes/{name}")
        except RefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _check(self, volume: Volume, users: list[Task], *, stop: bool) -> None:
        """Raises RefusedError (409) where somebody uses *volume* who is not to be stopped."""
        active = [t for t in users if t.desired in ("running", "waiting", "oneoff") and self._is_active(t)]
        if active and not stop:
            lines = "\n".join(
                f"{t.where}: {t.name} uses volume {volume.name}, which cannot be replaced under it" for t in active
            )
            raise RefusedError(f"{lines}\n--stop stops who uses it for that; --as NAME brings it back beside", 409)

    def _is_active(self, task: Task) -> bool:
        return bool(self._sources.container(task)) and task.node in self._cluster.ready

    async def _stop(self, users: list[Task], emit: Emit) -> None:
        """Stop *users*; those on nodes that do not answer are given another node later."""
        active = [t for t in users if self._is_active(t)]
        for stack in sorted({t.stack for t in active}):
            mine = [t for t in active if t.stack == stack]
            asked = ActRequest(services=tuple(sorted({t.service for t in mine})), tasks=tuple(t.name for t in mine))
            await change_desired_state(self._dispatcher, stack, "stop", asked, emit)

    async def _take_place(self, volume: Volume, node: str, emit: Emit, report: BackupReport) -> None:
        moved = msgspec.structs.replace(volume, node=node)
        failpoint("backup.arrived")
        await self._commit(node, moved)
        await self._state.transact([Put(store_keys.of_volume(volume.name), msgspec.json.encode(moved))])
        self._state.volumes[volume.name] = moved
        emit(_event(volume.name, volume, node, report))

    async def _commit(self, node: str, volume: Volume, *, replace: bool = True) -> None:
        record = {
            "name": volume.name,
            "driver": volume.driver,
            "labels": volume.own_labels,
            "options": dict(volume.options),
            "fresh": False,
        }
        path = f"/pystack/volumes/{volume.name}/commit"
        params = {"replace": "1"} if replace else {}
        await self._cluster.get(node).client.call("POST", path, params=params, json=record)


def _event(name: str, source: Volume, node: str, report: BackupReport) -> VolumeEvent:
    taken = report.snapshots[0]
    message = f"snapshot {taken.id} of {taken.time[:19]}: {report.files} files, {show_bytes(report.bytes)}, each compared"
    return VolumeEvent(volume=name, source=f"the backups of {source.name}", target=node, message=message)
