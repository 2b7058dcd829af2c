"""How a machine joins a cluster by a token, and what servers say over the link that it keeps then."""

from __future__ import annotations

from aiohttp import web

from agent.api.app_keys import CONVERGER, UPLINK, answer, given
from agent.contract.joining import MalformedJoinError
from agent.errors import BadRequestError, ConflictError
from agent.joining import JoinOptions, join
from agent.uplink import Uplink

routes = web.RouteTableDef()


def _uplink(request: web.Request) -> Uplink:
    found = request.app.get(UPLINK)
    if found is None:
        raise ConflictError("a server runs on this machine: it is a node of that server's cluster already")
    return found


@routes.post("/pystack/uplink")
async def join_cluster(request: web.Request) -> web.Response:
    """Join, by a JoinOptions; answers with the node's name."""
    converger, uplink = request.app[CONVERGER], _uplink(request)
    name = await join(await given(request, JoinOptions), converger.engine.paths, uplink, converger.manifest.member)
    return answer({"name": name})


@routes.put("/pystack/uplink/servers")
async def learn(request: web.Request) -> web.Response:
    """Take note of the servers that there are."""
    try:
        _uplink(request).learn(await given(request, list[str]))
    except MalformedJoinError as error:
        raise BadRequestError(str(error)) from None
    return web.Response(status=204)


@routes.post("/pystack/uplink/rotate")
async def rotate(request: web.Request) -> web.Response:
    """Exchange the node's key and certificate; its links are made again."""
    await _uplink(request).rotate()
    return web.Response(status=204)
