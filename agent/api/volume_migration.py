"""Volumes on their way to another node."""

from __future__ import annotations

import os

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, flag, given
from agent.contract.printable import quoted
from agent.errors import ConflictError, NotFoundError
from agent.volumes.volumes import VolumeRecord

routes = web.RouteTableDef()


@routes.get("/pystack/volumes/{name}/dump")
async def dump(request: web.Request) -> web.StreamResponse:
    """A tar of the volume; without *first*, of its changes since the last call."""
    chunks = request.app[ENGINE].moving.dump(request.match_info["name"], first=flag(request, "first"))
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


@routes.put("/pystack/volumes/{name}/dump")
async def receive(request: web.Request) -> web.Response:
    """Such a tar, for the volume that is to be here."""
    moving = request.app[ENGINE].moving
    await moving.receive(request.match_info["name"], request.content.iter_any(), first=flag(request, "first"))
    return web.Response(status=204)


@routes.get("/pystack/volumes/{name}/checksum")
async def checksum(request: web.Request) -> web.Response:
    """The checksum of the volume; with *arriving*, of the part that has arrived."""
    found = await request.app[ENGINE].moving.checksum(request.match_info["name"], arriving=flag(request, "arriving"))
    if not flag(request, "entries"):
        found = msgspec.structs.replace(found, entries={})
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.get("/pystack/volumes/{name}/record")
async def record(request: web.Request) -> web.Response:
    """Its description."""
    found = request.app[ENGINE].volumes.get(request.match_info["name"])
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.post("/pystack/volumes/{name}/commit")
async def commit(request: web.Request) -> web.Response:
    """Make the data that has arrived the volume, with the description in the body; with *replace* in place of what is there."""
    moving, record = request.app[ENGINE].moving, await given(request, VolumeRecord)
    if not os.path.isdir(moving.incoming(record.name)):
        raise NotFoundError(f"nothing has come of a volume {quoted(record.name)}")
    replace = flag(request, "replace")
    engine = request.app[ENGINE]
    using = [n for n in engine.containers.users_of_volume(record.name) if engine.containers.find(n).running] if replace else []
    if using:
        raise ConflictError(f"volume {record.name} is in use by {', '.join(using)}: stop that first")
    moving.commit(record, replace=replace)
    return web.Response(status=204)


@routes.delete("/pystack/volumes/{name}/dump")
async def discard(request: web.Request) -> web.Response:
    """Abort the migration: delete the data that has arrived."""
    await request.app[ENGINE].moving.discard(request.match_info["name"])
    return web.Response(status=204)
