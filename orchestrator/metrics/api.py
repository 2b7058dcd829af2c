"""Routes for Prometheus: an extension of the server's API. Who may call them may call the rest of it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from orchestrator.ingress.controller import Ingress
from orchestrator.metrics.discovery import TargetGroup, targets
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import PLANE, json_response

INGRESS = web.AppKey("ingress_of_metrics", Ingress)


async def metrics(request: web.Request) -> web.Response:
    """Metrics of the cluster, in OpenMetrics or in Prometheus' older format, as the client accepts."""
    from orchestrator.metrics.families import encoded, families  # who is never scraped does not load the library

    found = list(families(request.app[PLANE], request.app[INGRESS]))
    body, kind = await asyncio.to_thread(encoded, found, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": kind})


async def service_discovery(request: web.Request) -> web.Response:
    """List the tasks that have metrics of their own (x-metrics), for http_sd_configs of Prometheus."""
    state = request.app[PLANE].state
    underlays = {m.node.name: m.node.underlay for m in request.app[PLANE].cluster.members.values()}
    return json_response(targets([r.stack for r in state.stacks.values()], state.tasks.values(), state.networks, underlays))


ROUTES: tuple[Route, ...] = (
    ("GET", "/metrics", metrics, None, None),
    ("GET", "/v1/sd", service_discovery, None, list[TargetGroup]),
)


def extension(ingress: Ingress) -> ApiExtension:
    """The routes, for the server's application; *ingress* is what has certificates and proxies."""

    def attach(app: web.Application) -> None:
        app[INGRESS] = ingress

    return ApiExtension(routes=ROUTES, readable_when_stale=frozenset({"/v1/sd"}), attach=attach)
