"""The node's HTTP surface: the Docker Engine API's paths, with or without their version, and the manifest endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from agent.api import (
    build,
    containers,
    contents,
    dial,
    doctor,
    execs,
    images,
    inside,
    mailbox,
    manifest,
    moving,
    networks,
    shipping,
    system,
    volumes,
)
from agent.api.keys import CONVERGER, ENGINE, MAILBOX
from agent.engine.converge import Converger
from agent.errors import AgentError, NotModified, not_twice, told
from agent.mailbox import Mailbox

log = logging.getLogger(__name__)


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error in Docker's form: {"message": …} and its status."""
    try:
        return await handler(request)
    except NotModified:
        return web.Response(status=304)
    except AgentError as error:
        return web.json_response({"message": str(error)}, status=error.status)
    except (msgspec.MsgspecError, json.JSONDecodeError, ValueError) as error:
        return web.json_response({"message": f"malformed request: {error}"}, status=400)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason or error.text}, status=error.status)
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return web.json_response({"message": told(error)}, status=500)


def make(converger: Converger, box: Mailbox) -> web.Application:
    app = web.Application(middlewares=[errors], client_max_size=1 << 40)
    app.on_response_prepare.append(not_twice)
    app[CONVERGER] = converger
    app[ENGINE] = converger.engine
    app[MAILBOX] = box
    for module in (
        system, images, containers, contents, inside, execs, networks, volumes, build, manifest, shipping, dial, doctor, moving,
        mailbox,
    ):
        for route in module.routes:
            method, path, handler = route.method, route.path, route.handler
            app.router.add_route(method, path, handler)
            # every Docker client sends a version of its own
            app.router.add_route(method, r"/v{version:1\.\d+}" + path, handler)
    return app
