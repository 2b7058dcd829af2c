"""The findings of this node's doctor, and whether it reaches the others."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, flag, given
from agent.engine.doctor import diagnose, repair
from netplugins import ping

routes = web.RouteTableDef()


@routes.get("/pystack/doctor")
async def doctor(request: web.Request) -> web.Response:
    """A list of Findings; with *repair*, after repairs."""
    engine = request.app[ENGINE]
    found = await diagnose(engine)
    if flag(request, "repair"):
        found = await repair(engine, found)
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.post("/pystack/probe")
async def probe(request: web.Request) -> web.Response:
    """Echoes asked of other hosts. Takes a list of Probe, gives a list of Echo in the same order."""
    probes = await given(request, list[ping.EchoProbe])
    echoes = await asyncio.to_thread(ping.ask, probes)
    return web.Response(body=msgspec.json.encode(echoes), content_type="application/json")
