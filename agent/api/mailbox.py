"""How a control plane tells a node to read its manifest from etcd by itself, and knows that it did."""

from __future__ import annotations

from aiohttp import web

from agent.api.keys import MAILBOX, given
from agent.manifest import Access

routes = web.RouteTableDef()


@routes.put("/pystack/mailbox")
async def open_(request: web.Request) -> web.Response:
    await request.app[MAILBOX].open(await given(request, Access))
    return web.Response(status=204)


@routes.delete("/pystack/mailbox")
async def shut(request: web.Request) -> web.Response:
    await request.app[MAILBOX].shut()
    return web.Response(status=204)


@routes.post("/pystack/mailbox/{digest}")
async def ring(request: web.Request) -> web.Response:
    """Answers when the manifest with this digest was taken."""
    await request.app[MAILBOX].until(request.match_info["digest"])
    return web.Response(status=204)
