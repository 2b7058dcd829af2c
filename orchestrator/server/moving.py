"""A local volume taken to another node, its users with it.

Passes of what changed go over while the users run on; then they stop, one last pass goes over, both sides are compared
file by file, and the volume's home changes in one transaction. Only then, and once its users run there, is the old copy
deleted. `moves/<volume>` in the store says how far it came, so that a server that starts again ends it or takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.failpoints import failpoint
from agent.manifest import Record, Survey, Task, Volume
from orchestrator.couriers.courier import Courier
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.explain import Candidate, explain
from orchestrator.server import lifecycle
from orchestrator.server.rollout import Failure
from orchestrator.store.interface import Delete, Put

if TYPE_CHECKING:
    from orchestrator.server.controller import Controller

PASSES = 5  # at most so many before the users are stopped
SHORT_S = 1.0  # a pass that takes no longer is the last one before that
log = logging.getLogger(__name__)


class Move(Record, frozen=True, kw_only=True):
    """*stopped* are the services, as `stack/service`, that were stopped for it; *switched*: the target has it now."""

    volume: str
    source: str
    target: str
    stopped: tuple[str, ...] = ()
    switched: bool = False


async def move_volume(controller: Controller, name: str, target: str, tell: Any) -> list[Failure]:
    """Take volume *name* to node *target*. Raises RefusedError; whatever happens, one whole copy is in use."""
    volume = find(controller.volumes, name)
    users = [t for t in controller.tasks.values() if _uses(t, volume)]
    move = Move(volume=volume.name, source=volume.node, target=target)
    _refuse(controller, volume, users, move)
    if volume.node == target:
        return []
    async with controller.lock(f"volume {volume.name}"):
        try:
            move = await _carry(controller, move, users, tell)
        except BaseException:
            await asyncio.shield(_take_back(controller, move.volume))
            raise
        return await _settle(controller, move, tell)


async def follow(controller: Controller, node: str, tell: Any) -> list[Failure]:
    """Take the volumes that follow their users off *node*, each to the best node for all who use it."""
    failures: list[Failure] = []
    for volume in [v for v in controller.volumes.values() if v.follow and v.node == node and not v.shared]:
        users = [t for t in controller.tasks.values() if _uses(t, volume) and t.stack in controller.stacks]
        scores: dict[str, int] = {}
        for task in users:
            fit = {c.node: c.score for c in _candidates(controller, task) if not _against(c) and c.node != node}
            scores = {n: scores.get(n, 0) + s for n, s in fit.items() if n in scores or task is users[0]}
        if scores:
            best = max(sorted(scores), key=lambda n: scores[n])
            failures += await move_volume(controller, volume.name, best, tell)
    return failures


def find(volumes: Mapping[str, Volume], name: str) -> Volume:
    """The volume called so, in full or by its key in the only stack that has such a one."""
    hits = [volumes[name]] if name in volumes else [v for v in volumes.values() if v.key == name]
    if len(hits) != 1:
        known = ", ".join(sorted(volumes)) or "none"
        raise RefusedError(f"there is {'more than one' if hits else 'no'} volume {name}; there is: {known}", 404)
    return hits[0]


def _refuse(controller: Controller, volume: Volume, users: Sequence[Task], move: Move) -> None:
    member = controller.cluster.get(move.target)
    if volume.shared:
        raise RefusedError(
            f"volume {volume.name} ({volume.driver}) is not on one node: its users can be moved as they are", 409
        )
    if not volume.node:
        raise RefusedError(f"volume {volume.name} is on no node yet, or on each: there is nothing to move", 409)
    for name in {volume.node, move.target}:
        if not controller.cluster.get(name).ready:
            raise RefusedError(f"node {name} does not answer: {controller.cluster.get(name).problem}", 409)
    if member.node.availability != "active":
        raise RefusedError(f"node {move.target} is {member.node.availability}: it takes nothing", 409)
    for task in users:
        if task.stack not in controller.stacks:
            continue
        if against := _against(next(c for c in _candidates(controller, task) if c.node == move.target)):
            raise RefusedError(f"{task.name} cannot go to {move.target}: {'; '.join(against)}", 409)


def _candidates(controller: Controller, task: Task) -> tuple[Candidate, ...]:
    """Every node as *task* sees it."""
    stack = controller.stacks[task.stack].stack
    return explain(stack, task.service, task.name, controller.state(task.stack).tasks, controller.ground(task.stack)).candidates


def _against(candidate: Candidate) -> list[str]:
    """What speaks against a node, but that the volume is elsewhere."""
    return [f"{r.filter}: {r.detail}" for r in candidate.reasons if not r.ok and r.filter != "bound"]


def _uses(task: Task, volume: Volume) -> bool:
    return any(m.kind == "volume" and m.source == volume.name for m in task.container.mounts)


async def _carry(controller: Controller, move: Move, users: Sequence[Task], tell: Any) -> Move:
    """Everything up to the moment when the target has the volume."""
    source = controller.cluster.get(move.source).courier
    target = controller.cluster.get(move.target).courier
    await _write(controller, move)
    failpoint("move.begun")
    for number in range(PASSES):
        began = time.monotonic()
        await _pass(source, target, move.volume, first=number == 0)
        await _compare(source, target, move.volume)
        took = time.monotonic() - began
        tell({"event": "volume", "volume": move.volume, "from": move.source, "to": move.target,
              "message": f"pass {number + 1} took {took:.3f} s"})
        if took <= SHORT_S:
            break
    services = sorted({f"{t.stack}/{t.service}" for t in users if t.desired == "running" and t.stack in controller.stacks})
    move = msgspec.structs.replace(move, stopped=tuple(services))
    await _write(controller, move)
    began = time.monotonic()
    for stack, names in _by_stack(services).items():
        await lifecycle.act(controller, stack, "stop", names, tell)
    failpoint("move.stopped")
    await _pass(source, target, move.volume, first=False)
    differs, survey = await _compare(source, target, move.volume)
    if differs:
        some = ", ".join(differs[:5])
        raise RefusedError(f"volume {move.volume} did not arrive as it left: {some}; it stays on {move.source}", 409)
    described = await source.call("GET", f"/pystack/volumes/{move.volume}/stored")
    await target.call("POST", f"/pystack/volumes/{move.volume}/adopt", json=described)
    failpoint("move.arrived")
    moved = msgspec.structs.replace(controller.volumes[move.volume], node=move.target)
    move = msgspec.structs.replace(move, switched=True)
    await controller.transact([
        Put(f"volumes/{moved.name}", msgspec.json.encode(moved)), Put(f"moves/{moved.name}", msgspec.json.encode(move)),
    ])
    failpoint("move.switched")
    controller.volumes[moved.name] = moved
    tell({"event": "volume", "volume": move.volume, "from": move.source, "to": move.target,
          "message": f"{survey.files} files of {survey.bytes} bytes are the same on both; stopping, the last pass and "
                     f"comparing took {time.monotonic() - began:.3f} s"})
    return move


async def _pass(source: Courier, target: Courier, name: str, *, first: bool) -> None:
    flag = "?first=1" if first else ""
    chunks = source.chunks(f"/pystack/volumes/{name}/dump{flag}")
    await target.call("PUT", f"/pystack/volumes/{name}/dump{flag}", data=chunks)


async def _compare(source: Courier, target: Courier, name: str) -> tuple[list[str], Survey]:
    """Paths that differ, and what the source has."""
    path, arriving = f"/pystack/volumes/{name}/survey", {"arriving": "1"}
    left, right = await asyncio.gather(source.call("GET", path), target.call("GET", path, params=arriving))
    mine = msgspec.convert(left, Survey)
    if mine.digest == right["digest"]:
        return [], mine
    left, right = await asyncio.gather(
        source.call("GET", path, params={"entries": "1"}), target.call("GET", path, params={"entries": "1", **arriving})
    )
    one, other = left.get("entries", {}), right.get("entries", {})
    return sorted(p for p in one.keys() | other.keys() if one.get(p) != other.get(p)), mine


async def _settle(controller: Controller, move: Move, tell: Any) -> list[Failure]:
    """The users start where the volume is now; once they run, the old copy goes."""
    failures: list[Failure] = []
    for stack in _by_stack(move.stopped):
        failures += await lifecycle.again(controller, stack, tell)
    if failures:
        return failures  # the old copy stays: somebody will want to look
    source = controller.cluster.members.get(move.source)
    if source and source.ready:
        await source.courier.call("DELETE", f"/pystack/volumes/{move.volume}/dump")
        with contextlib.suppress(RefusedError):
            await source.courier.call("DELETE", f"/volumes/{move.volume}")
    failpoint("move.settled")
    await controller.transact([Delete(f"moves/{move.volume}")])
    return []


async def _take_back(controller: Controller, name: str) -> None:
    """Undo a move that did not come to its end; one that switched stays so."""
    found = await controller.store.get(f"moves/{name}")
    if found is None:
        return
    move = msgspec.json.decode(found.value, type=Move)
    if move.switched:
        await _settle(controller, move, _nobody)
        return
    for node in (move.target, move.source):
        member = controller.cluster.members.get(node)
        if member and member.ready:
            with contextlib.suppress(PystackError):
                await member.courier.call("DELETE", f"/pystack/volumes/{name}/dump")
    target = controller.cluster.members.get(move.target)
    if target and target.ready:
        with contextlib.suppress(PystackError):  # adopted, and not yet the volume's home: a copy
            await target.courier.call("DELETE", f"/volumes/{name}")
    for stack, services in _by_stack(move.stopped).items():
        with contextlib.suppress(PystackError):
            await lifecycle.act(controller, stack, "start", services, _nobody)
    await controller.transact([Delete(f"moves/{name}")])


async def recover(controller: Controller) -> None:
    """After a start of the server: end, or take back, what it was at."""
    for entry in await controller.store.scan("moves/"):
        move = msgspec.json.decode(entry.value, type=Move)
        for node in (move.source, move.target):
            if member := controller.cluster.members.get(node):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(member.synced.wait(), 30)
        try:
            await _take_back(controller, move.volume)
        except PystackError as error:
            log.warning("the move of volume %s to %s is not ended: %s", move.volume, move.target, error)


def _nobody(event: Any) -> None:
    """Nobody listens any more."""


async def _write(controller: Controller, move: Move) -> None:
    await controller.transact([Put(f"moves/{move.volume}", msgspec.json.encode(move))])


def _by_stack(services: Sequence[str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for word in services:
        stack, _, service = word.partition("/")
        out.setdefault(stack, []).append(service)
    return out
