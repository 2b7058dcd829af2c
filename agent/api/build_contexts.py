"""For our own client: contexts of builds by difference, which `POST /build?sent=ID` builds, and what a build has for it."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.api.app_keys import BUILDER, ENGINE, given
from agent.api.context import plain
from agent.api.hijack import Hijacked
from agent.contract.contexts import ContextOffer

routes = web.RouteTableDef()


@routes.post("/pystack/build/contexts")
async def offer(request: web.Request) -> web.Response:
    """A ContextOffer → a ContextAnswer: what is to be sent."""
    wanted = await given(request, ContextOffer)
    found = request.app[BUILDER].sent.offer(wanted)
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.put("/pystack/build/contexts/{id}")
async def fill(request: web.Request) -> web.Response:
    """The missing files, as a tar; without a body: nothing is missing after all."""
    engine, builder, ident = request.app[ENGINE], request.app[BUILDER], request.match_info["id"]
    if request.can_read_body:
        body = plain(request.content.iter_any())
        await builder.sent.fill(ident, body, engine.settings.limits, engine.images.bounds)
    else:
        builder.sent.confirm(ident)
    return web.Response(status=204)


@routes.get("/pystack/build/outputs/{id}")
async def output(request: web.Request) -> web.StreamResponse:
    """What a build has for its client, once."""
    stream = web.StreamResponse()
    async for data in request.app[BUILDER].spool.take(request.match_info["id"]):
        if not stream.prepared:
            await stream.prepare(request)
        await stream.write(data)
    return stream


@routes.post("/pystack/build/agents/{id}")
async def lend_agent(request: web.Request) -> web.StreamResponse:
    """Bytes both ways between one program of a build and an SSH agent of the client's."""
    await request.read()
    line = Hijacked(request, "application/octet-stream")
    await request.app[BUILDER].doors.offer(request.match_info["id"], line)
    return line
