"""The node's own part of an audit, and what an observed container was seen to do."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent import audit
from agent.api.app_keys import ENGINE, answer
from agent.errors import ConflictError
from agent.isolation import observation, seccomp

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


@routes.get("/pystack/containers/{name}/observed")
async def observed(request: web.Request) -> web.Response:
    """The system calls that a container with `seccomp=observe` was seen to make (Observed)."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    found = observation.read(engine.paths.bundle(record.id))
    if found is None:
        raise ConflictError(f"container {record.name} is not observed")
    beyond = sorted(seccomp.STRICT_WITHOUT & set(found.calls))
    return answer({**msgspec.to_builtins(found), "beyond_strict": beyond})
