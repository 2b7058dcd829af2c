"""How a node learns that it is not a node of its cluster any more."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.api.app_keys import CONVERGER, MANIFEST_WATCHER, UPLINK, given
from agent.contract.manifest import Farewell, Manifest
from agent.errors import ConflictError

routes = web.RouteTableDef()


@routes.post("/pystack/leave")
async def leave(request: web.Request) -> web.Response:
    """Take away all that the cluster had here. Refuses with 409 where the node is another member now, of this cluster or of
    another: one that was removed may have been added again since."""
    converger = request.app[CONVERGER]
    farewell, member = await given(request, Farewell), converger.manifest.member
    if member != farewell.member:
        raise ConflictError(f"this node is {f'member {member} of a cluster' if member else 'no member of a cluster'}")
    converger.membership.leave(member)
    await request.app[MANIFEST_WATCHER].disable()
    if uplink := request.app.get(UPLINK):
        uplink.forget()
    await converger.apply(Manifest())
    return web.Response(body=msgspec.json.encode(farewell), content_type="application/json")
