"""Backups of volumes of this node."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, given
from agent.contract.backup import BackupOrder

routes = web.RouteTableDef()


@routes.post("/pystack/backup")
async def carry_out(request: web.Request) -> web.Response:
    """Do what an order about a repository says, and report. If the client goes away, it is given up."""
    report = await request.app[ENGINE].backups.carry_out(await given(request, BackupOrder))
    return web.Response(body=msgspec.json.encode(report), content_type="application/json")
