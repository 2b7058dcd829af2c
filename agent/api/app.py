"""The node's HTTP surface: the Docker Engine API's paths, with or without their version, and the manifest endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.api import (
    audit,
    backup,
    build_contexts,
    container_http,
    dial,
    doctor,
    doors,
    manifest,
    manifest_source,
    membership,
    metrics,
    profiling,
    shipping,
    table,
    trust,
    uplink,
    usage,
    versions,
    volume_migration,
)
from agent.api.app_keys import BUILDER, CONVERGER, ENGINE, MANIFEST_WATCHER, VERSION, answer
from agent.api.table import Handler
from agent.build.builder import Builder
from agent.contract.printable import quoted, shown
from agent.contract.takeover import Written
from agent.engine.converge import Converger
from agent.errors import (
    AgentError,
    BadRequestError,
    NotFoundError,
    NotModifiedError,
    abort_if_response_started,
    disk_is_full,
    user_message,
)
from agent.manifest_watcher import EtcdManifestWatcher
from agent.settings import Door

log = logging.getLogger(__name__)
LARGEST = 64 << 20
"""Bytes of a request's body that is read as a whole; images, archives and build contexts stream."""


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in Docker's form: {"message": …} and its status."""
    try:
        _plain(request)
        request[VERSION] = versions.asked(request)
        return await handler(request)
    except NotModifiedError:
        return web.Response(status=304)
    except AgentError as error:
        places = {"places": [shown(place) for place in error.places]} if error.places else {}
        return answer({"message": shown(str(error)), **places}, error.status)
    except (msgspec.MsgspecError, json.JSONDecodeError, ValueError) as error:
        return answer({"message": shown(f"malformed request: {error}")}, 400)
    except web.RequestPayloadError as error:
        return answer({"message": shown(f"malformed request: {error}")}, 400)
    except RecursionError:
        return answer({"message": "malformed request: it is nested too deeply"}, 400)
    except web.HTTPNotFound:
        return answer({"message": "page not found"}, 404)
    except web.HTTPException as error:
        return answer({"message": error.reason or error.text}, error.status)
    except ConnectionError:
        return Written()  # the client is gone
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if disk_is_full(error):  # no fault of ours
            log.warning("%s %s: %s", request.method, request.path, user_message(error))
        else:
            log.exception("%s %s", request.method, request.path)
        return answer({"message": shown(user_message(error))}, 500)


PATHS = ("rest",)
"""Parts of a route that may have slashes, beside the names of images."""


def _plain(request: web.Request) -> None:
    """Check a request's path. Raises BadRequestError for characters that no name can have, NotFoundError for a name that is a
    path."""
    for where, values in (("path", request.match_info), ("query", request.query)):
        for key, value in values.items():
            if "\0" in value:
                raise BadRequestError(f"{key} in the {where} holds a zero byte")
    for key, value in request.match_info.items():
        if "/" in value and key not in PATHS and not any(part in request.path for part in ("/images/", "/distribution/")):
            raise NotFoundError(f"there is no {key} {quoted(value)}")


class OneLine(logging.Filter):
    """Keeps tracebacks out of the log that a client causes: it sends malformed HTTP, or it goes away."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop records whose cause is a malformed or cut-off request."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


OURS = (
    container_http,
    manifest,
    shipping,
    trust,
    audit,
    build_contexts,
    dial,
    doctor,
    volume_migration,
    backup,
    manifest_source,
    membership,
    metrics,
    usage,
    profiling,
    uplink,
)


def _dockers() -> Iterator[tuple[str, str, Handler]]:
    for route in table.ROUTES:
        yield route.method, route.path, table.handling(route)


def _rows() -> Iterator[tuple[str, str, Handler]]:
    yield from _dockers()
    for module in OURS:
        for own in module.routes:
            assert isinstance(own, web.RouteDef)
            yield own.method, own.path, own.handler


def make(converger: Converger, builder: Builder, box: EtcdManifestWatcher) -> web.Application:
    """The agent's application: each route of the Docker Engine API without and with a version prefix."""
    app = web.Application(middlewares=[web.middleware(errors)], client_max_size=LARGEST)
    app.on_response_prepare.extend((abort_if_response_started, versions.stamp))
    for prefix in ("", versions.PREFIX):
        _add(app, prefix, converger, builder, box, lambda handler: handler)
    return app


def make_door(converger: Converger, builder: Builder, door: Door) -> web.Application:
    """The application of the listener *door*: only Docker's paths."""
    app = web.Application(middlewares=[web.middleware(errors)], client_max_size=LARGEST)
    app.on_response_prepare.extend((abort_if_response_started, versions.stamp))
    app[CONVERGER], app[ENGINE], app[BUILDER] = converger, converger.engine, builder
    for prefix in ("", versions.PREFIX):
        for method, path, handler in _dockers():
            app.router.add_route(method, prefix + path, doors.guard(door, handler))
    return app


def mount_into(app: web.Application, prefix: str, converger: Converger, builder: Builder, box: EtcdManifestWatcher) -> None:
    """Have another application answer for the node below *prefix*, with the node's own words for errors."""

    def guarded(handler: Handler) -> Handler:
        async def answered(request: web.Request) -> web.StreamResponse:
            return await errors(request, handler)

        return answered

    _add(app, prefix, converger, builder, box, guarded)


def _add(
    app: web.Application,
    prefix: str,
    converger: Converger,
    builder: Builder,
    box: EtcdManifestWatcher,
    wrap: Callable[[Any], Handler],
) -> None:
    app[CONVERGER] = converger
    app[ENGINE], app[BUILDER] = converger.engine, builder
    app[MANIFEST_WATCHER] = box
    for method, path, handler in _rows():
        app.router.add_route(method, prefix + path, wrap(handler))
