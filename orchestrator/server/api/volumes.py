"""Routes of volumes."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.server.api.jobs import watched
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.backups.restore import RestoreRequest
from orchestrator.server.backups.sources import owner
from orchestrator.server.volume_migration import find


class MoveVolumeRequest(WireStruct, frozen=True, kw_only=True):
    """*node* is the target."""

    node: str


class SnapshotRow(TypedDict):
    """A snapshot of a volume; *node* is where it was made."""

    id: str
    time: str
    node: str


async def move_a_volume(request: web.Request) -> web.StreamResponse:
    """Move a volume and its users to another node; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["volume"]
    body = msgspec.json.decode(await request.read(), type=MoveVolumeRequest)
    return await stream(request, lambda emit: plane.migrator.move(name, body.node, emit))


async def run_backup(request: web.Request) -> web.StreamResponse:
    """Back a volume up now, or bring its newest backup back to the side and compare it; a stream of events that ends with the
    run."""
    plane = request.app[PLANE]
    volume = find(plane.state.volumes, request.match_info["volume"])
    backup = plane.backup_sources.of(volume)
    run = plane.jobs.order(*owner(volume.stack, volume.key, request.match_info["verb"]), "hand")
    run = msgspec.structs.replace(run, part=volume.name)
    await plane.jobs.book.put(run, keep=plane.backups.history(run), new=True)
    return await stream(request, lambda emit: watched(plane, run, backup.where, emit))


async def list_snapshots(request: web.Request) -> web.Response:
    """The backups that there are of a volume, the oldest first."""
    found = await request.app[PLANE].restorer.snapshots(request.match_info["volume"])
    return json_response([SnapshotRow(id=s.id, time=s.time, node=s.node) for s in found])


async def restore_a_volume(request: web.Request) -> web.StreamResponse:
    """Bring a backup of a volume back; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["volume"]
    body = msgspec.json.decode(await request.read(), type=RestoreRequest)
    if "/" in body.into:
        raise RefusedError(f"{body.into!r} is not a name of a volume", 400)
    return await stream(request, lambda emit: plane.restorer.restore(name, body, emit))
