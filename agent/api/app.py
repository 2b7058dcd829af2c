"""The node's HTTP surface: the Docker Engine API's paths, with or without their version, and the manifest endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

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
from agent.errors import AgentError, BadRequestError, NotFoundError, NotModifiedError, not_twice, shown, told
from agent.mailbox import Mailbox
from agent.trees.extract import quoted

LARGEST = 64 << 20
"""Bytes of a request's body that is read as a whole; images, archives and build contexts stream."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in Docker's form: {"message": …} and its status."""
    try:
        _plain(request)
        return await handler(request)
    except NotModifiedError:
        return web.Response(status=304)
    except AgentError as error:
        return web.json_response({"message": shown(str(error))}, status=error.status)
    except (msgspec.MsgspecError, json.JSONDecodeError, ValueError) as error:
        return web.json_response({"message": shown(f"malformed request: {error}")}, status=400)
    except web.RequestPayloadError as error:
        return web.json_response({"message": shown(f"malformed request: {error}")}, status=400)
    except RecursionError:
        return web.json_response({"message": "malformed request: it is nested too deeply"}, status=400)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason or error.text}, status=error.status)
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return web.json_response({"message": shown(told(error))}, status=500)


def _plain(request: web.Request) -> None:
    """Raises BadRequestError for what no name, path or argument can hold, and NotFoundError for a name that is a path."""
    for where, values in (("path", request.match_info), ("query", request.query)):
        for key, value in values.items():
            if "\0" in value:
                raise BadRequestError(f"{key} in the {where} holds a zero byte")
    for key, value in request.match_info.items():
        if "/" in value and "/images/" not in request.path:
            raise NotFoundError(f"there is no {key} {quoted(value)}")


class OneLine(logging.Filter):
    """Whoever connects can send what is no HTTP, or go away: that is no fault of ours, with a traceback in the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


MODULES = (
    system, images, containers, contents, inside, execs, networks, volumes, build, manifest, shipping, dial, doctor, moving,
    mailbox,
)


def make(converger: Converger, box: Mailbox) -> web.Application:
    app = web.Application(middlewares=[web.middleware(errors)], client_max_size=LARGEST)
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
