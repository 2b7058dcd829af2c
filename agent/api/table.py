"""Every route of the Docker Engine API, with its handler and the shape of its body.

Source: Docker Engine API v1.48, paths.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web

from agent.api import (
    containers,
    contents,
    execs,
    images,
    inside,
    login,
    networks,
    shapes,
    swarm,
    system,
    volumes,
)
from agent.api.app_keys import BODY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """*shape* is that of the JSON body; a route without one has no body, or one that is a stream."""

    method: str
    path: str
    handler: Handler
    shape: dict[str, Any] | None = None


def _build(name: str) -> Handler:
    """The handler *name* of `agent.api.build`, which the first request loads: 1.3 MB that a node which builds nothing saves."""

    async def handle(request: web.Request) -> web.StreamResponse:
        handler: Handler = getattr(importlib.import_module("agent.api.build"), name)
        return await handler(request)

    return handle


ROUTES = (
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/system/df", system.disk_usage),
    Route("GET", "/events", system.events),
    Route("GET", "/plugins", system.plugins),
    Route("*", "/plugins/{rest:.+}", system.no_plugin),
    Route("POST", "/auth", login.check, shapes.LOGIN),
    Route("POST", "/build", _build("build")),
    Route("POST", "/build/prune", _build("prune")),
    Route("POST", "/session", _build("session")),
    Route("POST", "/grpc", _build("services")),
    Route("GET", "/distribution/{name:.+}/json", images.distribution),
    Route("GET", "/images/json", images.listing),
    Route("GET", "/images/search", images.search),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/load", images.load),
    Route("GET", "/images/get", images.save),
    Route("POST", "/images/prune", images.prune),
    Route("GET", "/images/{name:.+}/json", images.inspect),
    Route("GET", "/images/{name:.+}/history", images.history),
    Route("GET", "/images/{name:.+}/get", images.save_one),
    Route("POST", "/images/{name:.+}/push", images.push),
    Route("POST", "/images/{name:.+}/tag", images.tag),
    Route("DELETE", "/images/{name:.+}", images.remove),
    Route("GET", "/containers/json", containers.listing),
    Route("POST", "/containers/create", containers.create, shapes.CREATE),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{name}/json", containers.inspect),
    Route("POST", "/containers/{name}/start", containers.start),
    Route("POST", "/containers/{name}/stop", containers.stop),
    Route("POST", "/containers/{name}/restart", containers.restart),
    Route("POST", "/containers/{name}/kill", containers.kill),
    Route("POST", "/containers/{name}/pause", containers.pause),
    Route("POST", "/containers/{name}/unpause", containers.unpause),
    Route("POST", "/containers/{name}/wait", containers.wait),
    Route("DELETE", "/containers/{name}", containers.remove),
    Route("DELETE", "/containers/{name}/{alias}", containers.unlink),
    Route("GET", "/containers/{name}/{alias}/json", containers.inspect),
    Route("GET", "/containers/{name}/logs", containers.read_logs),
    Route("POST", "/containers/{name}/rename", contents.rename),
    Route("POST", "/containers/{name}/update", contents.update, shapes.UPDATE),
    Route("GET", "/containers/{name}/export", contents.export),
    Route("GET", "/containers/{name}/changes", contents.changes),
    Route("POST", "/commit", contents.commit, shapes.CONFIG),
    Route("GET", "/containers/{name}/top", inside.top),
    Route("GET", "/containers/{name}/stats", inside.stats),
    Route("HEAD", "/containers/{name}/archive", inside.describe),
    Route("GET", "/containers/{name}/archive", inside.get),
    Route("PUT", "/containers/{name}/archive", inside.put),
    Route("POST", "/containers/{name}/attach", inside.attach),
    Route("GET", "/containers/{name}/attach/ws", inside.attach_by_websocket),
    Route("POST", "/containers/{name}/resize", inside.resize),
    Route("*", "/containers/{name}/checkpoints{rest:(/.*)?}", system.no_checkpoint),
    Route("POST", "/containers/{name}/exec", execs.create, shapes.EXEC),
    Route("GET", "/exec/{id}/json", execs.inspect),
    Route("POST", "/exec/{id}/start", execs.start, shapes.EXEC_START),
    Route("POST", "/exec/{id}/resize", execs.resize),
    Route("GET", "/networks", networks.listing),
    Route("POST", "/networks/create", networks.create, shapes.NETWORK),
    Route("POST", "/networks/prune", networks.prune),
    Route("GET", "/networks/{name}", networks.inspect),
    Route("DELETE", "/networks/{name}", networks.remove),
    Route("POST", "/networks/{name}/connect", networks.connect, shapes.CONNECT),
    Route("POST", "/networks/{name}/disconnect", networks.disconnect, shapes.DISCONNECT),
    Route("GET", "/volumes", volumes.listing),
    Route("POST", "/volumes/create", volumes.create, shapes.VOLUME),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("DELETE", "/volumes/{name}", volumes.remove),
    Route("*", "/{part:swarm|services|nodes|tasks|secrets|configs}{rest:(/.*)?}", swarm.none),
)


def handling(route: Route) -> Handler:
    """The handler of *route*, which finds the body compared with its shape at BODY."""
    shape, handler = route.shape, route.handler
    if shape is None:
        return handler

    async def read(request: web.Request) -> web.StreamResponse:
        request[BODY] = shapes.read(await request.read(), shape)
        return await handler(request)

    return read
