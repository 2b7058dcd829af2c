"""The next action for one task of the manifest. Pure: the same arguments give the same answer.

Level-triggered: it compares what should be with what is, and never asks what happened before. If it is cut off anywhere,
the next call goes on from there.
"""

from __future__ import annotations

import msgspec

from agent.contract.container import digest
from agent.contract.task import Task


class ObservedContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as reconciliation needs to know it. *image_present*: the wanted image is complete on the node."""

    id: str
    digest: str
    generation: int
    state: str
    stopped: bool


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Bring the image here; start nothing."""

    image: str


class Create(msgspec.Struct, frozen=True, tag=True):
    """Create the container of a task."""

    task: str


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start the container with this ID."""

    id: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop the container with this ID."""

    id: str


class Restart(msgspec.Struct, frozen=True, tag=True):
    """An ordered restart: the manifest's generation is ahead of the container's."""

    id: str


class Remove(msgspec.Struct, frozen=True, tag=True):
    """*replaced*: a successor follows, which inherits the anonymous volumes."""

    id: str
    replaced: bool


Action = Prepare | Create | Start | Stop | Restart | Remove


def next_action(task: Task | None, seen: ObservedContainer | None, *, image_present: bool) -> Action | None:
    """The next action towards *task*, None if there is nothing to do."""
    if task is None:
        return Remove(seen.id, replaced=False) if seen else None
    same = seen is not None and seen.digest == digest(task.container)
    if task.desired == "waiting":
        if not image_present:
            return Prepare(task.container.image)
        return Create(task.name) if seen is None else None
    if task.desired == "stopped":
        up = seen is not None and seen.state in ("running", "paused", "restarting", "starting")
        return Stop(seen.id) if seen and up else None
    if seen is None:
        return Create(task.name)
    if not same:
        return Remove(seen.id, replaced=True)
    if seen.state == "created" or (seen.state in ("exited", "failed") and seen.stopped):
        return Start(seen.id)
    if seen.generation < task.generation:
        return Restart(seen.id)
    return None
