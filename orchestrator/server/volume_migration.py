"""Moves a local volume to another node, and its users with it.

While the users run, passes copy what changed. Then the users stop, a last pass runs, both sides are compared file by file, and
one transaction changes the volume's node. The old copy is deleted only after that, once the users run on the new node.
`moves/<volume>` in the store records how far the move is, so that a server that starts again finishes it or takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

import msgspec

from agent.contract.failpoints import failpoint
from agent.contract.task import Task
from agent.contract.volume import TreeChecksum, Volume
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.placement.explain import Candidate, explain
from orchestrator.server import store_keys
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, Failure, VolumeEvent, ignore
from orchestrator.server.inputs import Inputs
from orchestrator.server.lifecycle import change_desired_state
from orchestrator.server.records import ActRequest
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.volume_leftovers import VolumeLeftovers, delete_copy
from orchestrator.store.interface import Delete, Op, Put, StoreError
from orchestrator.transport.agent_client import AgentClient

MAX_PASSES = 5
"""How many passes run at most before the users are stopped."""
SHORT_PASS_S = 1.0
"""After a pass that takes no longer than this the users are stopped."""
CONNECT_TIMEOUT_S = 30.0
"""How long a server that starts again waits for the two nodes of a move."""
RETRY_S = 3.0
"""How often moves that could not be ended are tried again."""
log = logging.getLogger(__name__)


class VolumeMove(WireStruct, frozen=True, kw_only=True):
    """A move as the store has it. *stopped* lists the services, as `stack/service`, of which tasks were stopped for it, *tasks*
    the names of those (an older server stopped all of the services); *switched* is true once *target* is the volume's node."""

    volume: str
    source: str
    target: str
    stopped: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    switched: bool = False


class VolumeMigrator:
    """Moves volumes; at any moment one whole copy of each is in use."""

    def __init__(self, dispatcher: Dispatcher, rollouts: RolloutManager, inputs: Inputs) -> None:
        self._dispatcher, self._state, self._cluster = dispatcher, dispatcher.state, dispatcher.cluster
        self._rollouts = rollouts
        self._inputs = inputs
        self.leftovers = VolumeLeftovers(dispatcher.state, dispatcher.cluster)
        self._unfinished: set[str] = set()
        """Volumes whose moves this server could not end: it tries again."""
        self._recovered = asyncio.Event()
        """Set once the moves of earlier servers are ended: a new one of the same volume must not run beside."""

    async def move(self, name: str, target: str, emit: Emit) -> list[Failure]:
        """Move volume *name* to node *target*. Returns the users that do not come up there. Raises RefusedError."""
        await self._recovered.wait()
        await self._cluster.settled()
        volume = find(self._state.volumes, name)
        users = [t for t in self._state.tasks.values() if _uses(t, volume)]
        move = VolumeMove(volume=volume.name, source=volume.node, target=target)
        self._check(volume, users, move)
        if volume.node == target:
            return []
        async with self._state.lock(f"volume {volume.name}").hold("volume move", emit):
            await self._take_back(volume.name)  # of a move that could not be ended
            await self.leftovers.clear(target, volume.name)
            try:
                move = await self._migrate(move, users, emit)
            except BaseException:
                await asyncio.shield(self._take_back(move.volume))
                raise
            try:
                return await self._finish(move, emit)
            except BaseException:
                self._unfinished.add(volume.name)
                raise

    async def evacuate(self, node: str, emit: Emit) -> list[Failure]:
        """Move the volumes that follow their users away from *node*, each to the node that is best for all its users."""
        failures: list[Failure] = []
        for volume in [v for v in self._state.volumes.values() if v.follow and v.node == node and not v.shared]:
            users = [t for t in self._state.tasks.values() if _uses(t, volume) and t.stack in self._state.stacks]
            scores: dict[str, int] = {}
            for task in users:
                fit = {c.node: c.score for c in self._candidates(task) if not _obstacles(c) and c.node != node}
                scores = {n: scores.get(n, 0) + s for n, s in fit.items() if n in scores or task is users[0]}
            if scores:
                best = max(sorted(scores), key=lambda n: scores[n])
                failures += await self.move(volume.name, best, emit)
        return failures

    async def recover(self) -> None:
        """After a start of the server: finish the moves that it was at, or take them back."""
        try:
            await self._recover()
        finally:
            self._recovered.set()

    async def _recover(self) -> None:
        for entry in await self._state.store.scan("moves/"):
            move = msgspec.json.decode(entry.value, type=VolumeMove)
            for node in (move.source, move.target):
                if member := self._cluster.members.get(node):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CONNECT_TIMEOUT_S):
                            await member.synced.wait()
            try:
                await self._take_back(move.volume)
            except PystackError as error:
                self._unfinished.add(move.volume)
                log.warning("the move of volume %s to %s is not ended: %s", move.volume, move.target, error)

    async def retry(self) -> None:
        """End moves that could not be ended at once. Never returns. Raises StoreError."""
        while True:
            await asyncio.sleep(RETRY_S)
            for name in sorted(self._unfinished):
                try:
                    async with self._state.lock(f"volume {name}").hold("volume move"):
                        await self._take_back(name)
                except StoreError:
                    raise
                except PystackError as error:
                    log.info("the move of volume %s is still not ended: %s", name, error)
                else:
                    self._unfinished.discard(name)

    def _check(self, volume: Volume, users: Sequence[Task], move: VolumeMove) -> None:
        """Raises RefusedError if the volume cannot go to the target of *move*."""
        member = self._cluster.get(move.target)
        if volume.shared:
            raise RefusedError(
                f"volume {volume.name} ({volume.driver}) is not on one node: its users can be moved as they are", 409
            )
        if not volume.node:
            raise RefusedError(f"volume {volume.name} is on no node yet, or on each: there is nothing to move", 409)
        for name in {volume.node, move.target}:
            if not self._cluster.get(name).ready:
                raise RefusedError(f"node {name} does not answer: {self._cluster.get(name).problem}", 409)
        if member.node.availability != "active":
            raise RefusedError(f"node {move.target} is {member.node.availability}: it takes nothing", 409)
        for task in users:
            if task.stack not in self._state.stacks:
                continue
            if against := _obstacles(next(c for c in self._candidates(task) if c.node == move.target)):
                raise RefusedError(f"{task.name} cannot go to {move.target}: {'; '.join(against)}", 409)

    def _candidates(self, task: Task) -> tuple[Candidate, ...]:
        """Every node with placement's verdict on *task*."""
        stack, current = self._state.stacks[task.stack].stack, self._state.of_stack(task.stack)
        return explain(stack, task.service, task.name, current.tasks, self._inputs.placement(task.stack)).candidates

    async def _migrate(self, move: VolumeMove, users: Sequence[Task], emit: Emit) -> VolumeMove:
        """Everything until the target is the volume's node."""
        source, target = self._cluster.get(move.source).client, self._cluster.get(move.target).client
        await self._write(move)
        failpoint("move.begun")
        await self._copy_while_in_use(move, source, target, emit)
        running = [t for t in users if t.desired == "running" and t.stack in self._state.stacks]
        services = {f"{t.stack}/{t.service}" for t in running}
        # of a set whose replicas have a volume each, the others run on
        move = msgspec.structs.replace(move, stopped=tuple(sorted(services)), tasks=tuple(sorted(t.name for t in running)))
        await self._write(move)
        began = time.monotonic()
        for stack, asked in _requests(move).items():
            await change_desired_state(self._dispatcher, stack, "stop", asked, emit)
        failpoint("move.stopped")
        await _copy(source, target, move.volume, first=False)
        differs, checksum = await _compare(source, target, move.volume)
        if differs:
            some = ", ".join(differs[:5])
            raise RefusedError(f"volume {move.volume} did not arrive as it left: {some}; it stays on {move.source}", 409)
        described = await source.call("GET", f"/pystack/volumes/{move.volume}/record")
        await target.call("POST", f"/pystack/volumes/{move.volume}/commit", json=described)
        failpoint("move.arrived")
        moved = msgspec.structs.replace(self._state.volumes[move.volume], node=move.target)
        move = msgspec.structs.replace(move, switched=True)
        await self._state.transact(
            [
                Put(store_keys.of_volume(moved.name), msgspec.json.encode(moved)),
                Put(store_keys.of_volume_move(moved.name), msgspec.json.encode(move)),
            ]
        )
        failpoint("move.switched")
        self._state.volumes[moved.name] = moved
        emit(
            VolumeEvent(
                volume=move.volume,
                source=move.source,
                target=move.target,
                message=(
                    f"{checksum.files} files of {checksum.bytes} bytes are the same on both; stopping, the last pass and "
                    f"comparing took {time.monotonic() - began:.3f} s"
                ),
            )
        )
        return move

    async def _copy_while_in_use(self, move: VolumeMove, source: AgentClient, target: AgentClient, emit: Emit) -> None:
        """Passes over the volume, until one is short."""
        for number in range(MAX_PASSES):
            began = time.monotonic()
            await _copy(source, target, move.volume, first=number == 0)
            await _compare(source, target, move.volume)
            took = time.monotonic() - began
            emit(
                VolumeEvent(
                    volume=move.volume, source=move.source, target=move.target, message=f"pass {number + 1} took {took:.3f} s"
                )
            )
            if took <= SHORT_PASS_S:
                return

    async def _finish(self, move: VolumeMove, emit: Emit) -> list[Failure]:
        """Start the users on the new node, and delete the old copy once they run. Returns the users that failed."""
        failures: list[Failure] = []
        for stack in _requests(move):
            failures += await self._rollouts.redeploy(stack, emit)
        if failures:
            return failures  # the old copy stays: somebody will want to look at it
        left: list[Op] = []
        try:
            await delete_copy(self._cluster, move.source, move.volume)
        except (RefusedError, UnreachableError):  # it is deleted when the node answers again, and nothing uses it there
            left = [self.leftovers.put(move.source, move.volume)]
        failpoint("move.settled")
        await self._state.transact([Delete(store_keys.of_volume_move(move.volume)), *left])
        return []

    async def _take_back(self, name: str) -> None:
        """Undo the move of volume *name*; finish it if the volume's node has changed already."""
        found = await self._state.store.get(store_keys.of_volume_move(name))
        if found is None:
            return
        move = msgspec.json.decode(found.value, type=VolumeMove)
        if move.switched:
            await self._finish(move, ignore)
            return
        for node in (move.target, move.source):
            member = self._cluster.members.get(node)
            if member and member.ready:
                with contextlib.suppress(PystackError):
                    await member.client.call("DELETE", f"/pystack/volumes/{name}/dump")
        target = self._cluster.members.get(move.target)
        if target and target.ready:
            with contextlib.suppress(PystackError):  # a copy: the target adopted it, but is not the volume's node yet
                await target.client.call("DELETE", f"/volumes/{name}")
        for stack, asked in _requests(move).items():
            with contextlib.suppress(PystackError):
                await change_desired_state(self._dispatcher, stack, "start", asked, ignore)
        await self._state.transact([Delete(store_keys.of_volume_move(name))])

    async def _write(self, move: VolumeMove) -> None:
        await self._state.transact([Put(store_keys.of_volume_move(move.volume), msgspec.json.encode(move))])


def find(volumes: Mapping[str, Volume], name: str) -> Volume:
    """The volume with that name, or with that key in the only stack that has one. Raises RefusedError (404)."""
    hits = [volumes[name]] if name in volumes else [v for v in volumes.values() if v.key == name]
    if len(hits) != 1:
        known = ", ".join(sorted(volumes)) or "none"
        raise RefusedError(f"there is {'more than one' if hits else 'no'} volume {name}; there is: {known}", 404)
    return hits[0]


def _obstacles(candidate: Candidate) -> list[str]:
    """The reasons against a node, except that the volume is elsewhere."""
    return [f"{r.filter}: {r.detail}" for r in candidate.reasons if not r.ok and r.filter != "bound"]


def _uses(task: Task, volume: Volume) -> bool:
    return any(m.kind == "volume" and m.source == volume.name for m in task.container.mounts)


def _requests(move: VolumeMove) -> dict[str, ActRequest]:
    """What is to be stopped for *move*, or started after it, by stack."""
    services: dict[str, list[str]] = {}
    for word in move.stopped:
        stack, _, service = word.partition("/")
        services.setdefault(stack, []).append(service)
    return {stack: ActRequest(services=tuple(names), tasks=move.tasks) for stack, names in services.items()}


async def _copy(source: AgentClient, target: AgentClient, name: str, *, first: bool) -> None:
    """One pass: everything if it is the *first*, then what changed since the last one."""
    flag = "?first=1" if first else ""
    chunks = source.chunks(f"/pystack/volumes/{name}/dump{flag}")
    await target.call("PUT", f"/pystack/volumes/{name}/dump{flag}", data=chunks)


async def _compare(source: AgentClient, target: AgentClient, name: str) -> tuple[list[str], TreeChecksum]:
    """The paths that differ, and what the source has."""
    path, arriving = f"/pystack/volumes/{name}/checksum", {"arriving": "1"}
    left, right = await asyncio.gather(source.call("GET", path), target.call("GET", path, params=arriving))
    mine = msgspec.convert(left, TreeChecksum)
    if mine.digest == right["digest"]:
        return [], mine
    left, right = await asyncio.gather(
        source.call("GET", path, params={"entries": "1"}), target.call("GET", path, params={"entries": "1", **arriving})
    )
    one, other = left.get("entries", {}), right.get("entries", {})
    return sorted(p for p in one.keys() | other.keys() if one.get(p) != other.get(p)), mine
