"""The REST API of ingress: an extension of the server's API."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.ingress.controller import Ingress
from orchestrator.ingress.model import IngressSettings, Overview
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.events import Event
from orchestrator.server.openapi import StreamOf

INGRESS = web.AppKey("ingress", Ingress)


class Root(WireStruct, frozen=True, kw_only=True):
    """The certificate of the cluster's own authority, as PEM."""

    certificate: str


async def up(request: web.Request) -> web.StreamResponse:
    """Run the proxies; a stream of events. Settings that the query names in *keep*, with commas, stay as they are."""
    asked = msgspec.json.decode(await request.read(), type=IngressSettings)
    kept = set(request.query.get("keep", "").split(",")) & set(IngressSettings.__struct_fields__)
    ingress = request.app[INGRESS]
    settings = asked.keeping(ingress.settings, kept)
    return await stream(request, lambda emit: ingress.up(settings, emit))


async def down(request: web.Request) -> web.StreamResponse:
    """Stop the proxies; a stream of events."""
    return await stream(request, lambda emit: request.app[INGRESS].down(emit))


async def get(request: web.Request) -> web.Response:
    """What is answered, and by which proxies."""
    return json_response(request.app[INGRESS].overview())


async def root(request: web.Request) -> web.Response:
    """The certificate of the cluster's own authority."""
    from orchestrator import authority

    return json_response(Root(certificate=authority.root_certificate(await request.app[INGRESS].certificates.root())))


ROUTES: tuple[Route, ...] = (
    ("GET", "/v1/ingress", get, None, Overview),
    ("POST", "/v1/ingress", up, IngressSettings, StreamOf(Event)),
    ("POST", "/v1/ingress/down", down, None, StreamOf(Event)),
    ("GET", "/v1/ingress/ca", root, None, Root),
)
READABLE_WHEN_STALE = frozenset({"/v1/ingress"})


def extension(ingress: Ingress) -> ApiExtension:
    """The routes of *ingress*, for the server's application."""

    def attach(app: web.Application) -> None:
        app[INGRESS] = ingress

    return ApiExtension(routes=ROUTES, readable_when_stale=READABLE_WHEN_STALE, attach=attach, checks=ingress.checks)
