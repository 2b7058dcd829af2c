"""The node's HTTP surface: the Docker Engine API's paths, with or without their version, and the manifest endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from aiohttp import web

from agent.api import dial, doctor, mailbox, manifest, moving, shipping, table, versions
from agent.api.keys import CONVERGER, ENGINE, MAILBOX, VERSION, answer
from agent.api.table import Handler
from agent.engine.converge import Converger
from agent.errors import AgentError, NotModifiedError, not_twice, told
from agent.mailbox import Mailbox
from agent.takeover import Written

log = logging.getLogger(__name__)
WIRE = logging.getLogger(f"{__name__}.wire")
"""What the HTTP library has to say: of requests that are none, with a traceback each. Whoever sent one was told 400."""
WIRE.setLevel(logging.CRITICAL)


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in Docker's form: {"message": …} and its status."""
    try:
        request[VERSION] = versions.asked(request)
        return await handler(request)
    except NotModifiedError:
        return web.Response(status=304)
    except AgentError as error:
        return answer({"message": str(error)}, error.status)
    except (msgspec.MsgspecError, json.JSONDecodeError, ValueError) as error:
        return answer({"message": f"malformed request: {error}"}, 400)
    except web.HTTPNotFound:
        return answer({"message": "page not found"}, 404)
    except web.HTTPException as error:
        return answer({"message": error.reason or error.text}, error.status)
    except ConnectionError:
        return Written()  # nobody is there to be answered
    except asyncio.CancelledError:
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return answer({"message": told(error)}, 500)


OURS = (manifest, shipping, dial, doctor, moving, mailbox)


def _rows() -> Iterator[tuple[str, str, Handler]]:
    for route in table.ROUTES:
        yield route.method, route.path, table.handling(route)
    for module in OURS:
        for own in module.routes:
            assert isinstance(own, web.RouteDef)
            yield own.method, own.path, own.handler


def make(converger: Converger, box: Mailbox) -> web.Application:
    app = web.Application(middlewares=[web.middleware(errors)], client_max_size=1 << 40)
    app.on_response_prepare.extend((not_twice, versions.stamp))
    for prefix in ("", versions.PREFIX):
        _add(app, prefix, converger, box, lambda handler: handler)
    return app


def answer_in(app: web.Application, prefix: str, converger: Converger, box: Mailbox) -> None:
    """Have another application answer for the node below *prefix*, with the node's own words for errors."""

    def guarded(handler: Handler) -> Handler:
        async def answered(request: web.Request) -> web.StreamResponse:
            return await errors(request, handler)

        return answered

    _add(app, prefix, converger, box, guarded)


def _add(app: web.Application, prefix: str, converger: Converger, box: Mailbox, wrap: Callable[[Any], Handler]) -> None:
    app[CONVERGER] = converger
    app[ENGINE] = converger.engine
    app[MAILBOX] = box
    for method, path, handler in _rows():
        app.router.add_route(method, prefix + path, wrap(handler))
