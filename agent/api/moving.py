"""Volumes on their way to another node."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from agent.api.keys import ENGINE, flag
from agent.errors import BadRequestError
from agent.volumes.volumes import Stored

routes = web.RouteTableDef()


def _volume(request: web.Request) -> str:
    """The name in the path, which is a folder's too. Raises BadRequestError."""
    name = request.match_info["name"]
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", name):
        raise BadRequestError(f"volume name {name!r}: letters, digits and _ . - only, beginning with a letter or digit")
    return name


@routes.get("/pystack/volumes/{name}/dump")
async def dump(request: web.Request) -> web.StreamResponse:
    """A tar of the volume; without *first*, of what changed since the last call."""
    chunks = request.app[ENGINE].moving.dump(_volume(request), first=flag(request, "first"))
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


@routes.put("/pystack/volumes/{name}/dump")
async def take(request: web.Request) -> web.Response:
    """Such a tar, for the volume that is to be here."""
    moving = request.app[ENGINE].moving
    await moving.take(_volume(request), request.content.iter_any(), first=flag(request, "first"))
    return web.Response(status=204)


@routes.get("/pystack/volumes/{name}/survey")
async def survey(request: web.Request) -> web.Response:
    """What there is of it; *arriving*: of what has come so far."""
    found = await request.app[ENGINE].moving.survey(_volume(request), arriving=flag(request, "arriving"))
    if not flag(request, "entries"):
        found = msgspec.structs.replace(found, entries={})
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.get("/pystack/volumes/{name}/stored")
async def stored(request: web.Request) -> web.Response:
    """Its description."""
    found = request.app[ENGINE].volumes.get(_volume(request))
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.post("/pystack/volumes/{name}/adopt")
async def adopt(request: web.Request) -> web.Response:
    """What has come becomes the volume, with the description in the body."""
    request.app[ENGINE].moving.adopt(msgspec.json.decode(await request.read(), type=Stored))
    return web.Response(status=204)


@routes.delete("/pystack/volumes/{name}/dump")
async def discard(request: web.Request) -> web.Response:
    """The move is off: what has come is deleted."""
    await request.app[ENGINE].moving.discard(_volume(request))
    return web.Response(status=204)
