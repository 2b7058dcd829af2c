"""Contexts of builds by difference, for our own client. `POST /build?sent=ID` builds one."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, given
from agent.api.context import plain
from agent.contract.contexts import ContextOffer

routes = web.RouteTableDef()


@routes.post("/pystack/build/contexts")
async def offer(request: web.Request) -> web.Response:
    """A ContextOffer → a ContextAnswer: what is to be sent."""
    wanted = await given(request, ContextOffer)
    found = request.app[ENGINE].builder.sent.offer(wanted)
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.put("/pystack/build/contexts/{id}")
async def fill(request: web.Request) -> web.Response:
    """The missing files, as a tar; without a body: nothing is missing after all."""
    engine, ident = request.app[ENGINE], request.match_info["id"]
    if request.can_read_body:
        body = plain(request.content.iter_any())
        await engine.builder.sent.fill(ident, body, engine.settings.limits, engine.images.bounds)
    else:
        engine.builder.sent.confirm(ident)
    return web.Response(status=204)
