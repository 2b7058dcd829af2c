"""The application of a server that leads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from agent.errors import abort_if_response_started
from orchestrator.server.api.claims import CLAIMS
from orchestrator.server.api.extension import ApiExtension
from orchestrator.server.api.guard import OWN_ENGINE, add_headers, guard, trust
from orchestrator.server.api.responses import PLANE, STOP, errors
from orchestrator.server.api.routes import ROUTE_TABLE, ROUTES
from orchestrator.server.api.system import CHECKS
from orchestrator.server.plane import ControlPlane

__all__ = ["OWN_ENGINE", "make_app"]


def make_app(
    plane: ControlPlane, stop: asyncio.Event, extensions: Sequence[ApiExtension] = (), trusted: Path | None = None
) -> web.Application:
    """The application of a server that leads, with the routes of *extensions*. A request can set *stop*. At the socket
    *trusted* everybody is root; where none is named, everywhere."""
    app = web.Application(middlewares=[errors, guard], client_max_size=64 << 20)
    app[CLAIMS] = {}
    app.on_response_prepare.append(abort_if_response_started)
    app.on_response_prepare.append(add_headers)
    trust(app, trusted)
    app[PLANE] = plane
    app[STOP] = stop
    app[CHECKS] = [extension.checks for extension in extensions]
    app[ROUTE_TABLE] = (*ROUTES, *(route for extension in extensions for route in extension.routes))
    for extension in extensions:
        extension.attach(app)
    for method, path, handler, _, _ in app[ROUTE_TABLE]:
        app.router.add_route(method, path, handler)
    return app
