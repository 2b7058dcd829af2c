"""The node's own part of an audit."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent import audit
from agent.api.app_keys import ENGINE, answer

routes = web.RouteTableDef()


@routes.get("/pystack/audit")
async def examine(request: web.Request) -> web.Response:
    """Every rule of the benchmark on this node (HostFinding)."""
    engine = request.app[ENGINE]
    found = await asyncio.to_thread(audit.examine, engine.paths, engine.settings)
    return answer([msgspec.to_builtins(f) for f in found])


@routes.post("/pystack/audit/fix")
async def fix(request: web.Request) -> web.Response:
    """Put the permissions of pystack's own files right → the paths that were changed."""
    return answer(await asyncio.to_thread(audit.fix, request.app[ENGINE].paths))
