"""The application of a server that leads."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.errors import abort_if_response_started
from orchestrator.gitops import api as repositories
from orchestrator.gitops.gitops import Gitops
from orchestrator.server.api.responses import PLANE, STOP, errors
from orchestrator.server.api.routes import ROUTES
from orchestrator.server.plane import ControlPlane

OWN_ENGINE = "/v1/nodes/local/engine"
"""The path of the Engine API of the server's own node."""


def make_app(plane: ControlPlane, gitops: Gitops, stop: asyncio.Event) -> web.Application:
    """The application of a server that leads. A request can set *stop*."""
    app = web.Application(middlewares=[errors], client_max_size=64 << 20)
    app.on_response_prepare.append(abort_if_response_started)
    app[PLANE] = plane
    app[repositories.GITOPS] = gitops
    app[STOP] = stop
    for method, path, handler, _, _ in ROUTES:
        app.router.add_route(method, path, handler)
    return app
