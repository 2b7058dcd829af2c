"""Routes of volumes."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.server.api.responses import PLANE
from orchestrator.server.api.stream import stream


class MoveVolumeRequest(WireStruct, frozen=True, kw_only=True):
    """*node* is the target."""

    node: str


async def move_a_volume(request: web.Request) -> web.StreamResponse:
    """Move a volume and its users to another node; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["volume"]
    body = msgspec.json.decode(await request.read(), type=MoveVolumeRequest)
    return await stream(request, lambda emit: plane.migrator.move(name, body.node, emit))
