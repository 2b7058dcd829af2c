"""The node's HTTP surface: the Docker Engine API's paths, with or without their version, and the manifest endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

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
from agent.errors import AgentError, NotModifiedError, not_twice, told
from agent.mailbox import Mailbox

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in Docker's form: {"message": …} and its status."""
    try:
        return await handler(request)
    except NotModifiedError:
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


MODULES = (
    system, images, containers, contents, inside, execs, networks, volumes, build, manifest, shipping, dial, doctor, moving,
    mailbox,
)


def make(converger: Converger, box: Mailbox) -> web.Application:
    app = web.Application(middlewares=[web.middleware(errors)], client_max_size=1 << 40)
    app.on_response_prepare.append(not_twice)
    for prefix in ("", r"/v{version:1\.\d+}"):  # every Docker client sends a version of its own
        _add(app, prefix, converger, box, lambda handler: handler)
    return app


def answer_in(app: web.Application, prefix: str, converger: Converger, box: Mailbox) -> None:
    """Have another application answer for the node below *prefix*, with the node's own words for errors."""

    def guarded(handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await errors(request, handler)

        return answer

    _add(app, prefix, converger, box, guarded)


def _add(app: web.Application, prefix: str, converger: Converger, box: Mailbox, wrap: Callable[[Any], Handler]) -> None:
    app[CONVERGER] = converger
    app[ENGINE] = converger.engine
    app[MAILBOX] = box
    for module in MODULES:
        for route in module.routes:
            assert isinstance(route, web.RouteDef)
            app.router.add_route(route.method, prefix + route.path, wrap(route.handler))
