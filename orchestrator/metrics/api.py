"""Routes for Prometheus: an extension of the server's API. Who may call them may call the rest of it."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.gitops.gitops import Gitops
from orchestrator.ingress.controller import Ingress
from orchestrator.metrics.controller import Monitoring
from orchestrator.metrics.discovery import TargetGroup, nodes, targets
from orchestrator.metrics.prometheus import MonitoringSettings
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.events import Event
from orchestrator.server.openapi import StreamOf

INGRESS = web.AppKey("ingress_of_metrics", Ingress)
MONITORING = web.AppKey("monitoring", Monitoring)
GITOPS = web.AppKey("gitops_of_metrics", Gitops)


class DownRequest(WireStruct, frozen=True, kw_only=True):
    """With *volumes*, what Prometheus knows goes too."""

    volumes: bool = False


async def metrics(request: web.Request) -> web.Response:
    """Metrics of the cluster, in OpenMetrics or in Prometheus' older format, as the client accepts."""
    from orchestrator.metrics.families import encoded, families  # who is never scraped does not load the library

    found = list(families(request.app[PLANE], request.app[INGRESS], request.app[GITOPS]))
    body, kind = await asyncio.to_thread(encoded, found, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": kind})


async def service_discovery(request: web.Request) -> web.Response:
    """List the tasks that have metrics of their own (x-metrics), for http_sd_configs of Prometheus."""
    state = request.app[PLANE].state
    underlays = {m.node.name: m.node.underlay for m in request.app[PLANE].cluster.members.values()}
    return json_response(targets([r.stack for r in state.stacks.values()], state.tasks.values(), state.networks, underlays))


async def service_discovery_of_nodes(request: web.Request) -> web.Response:
    """List the nodes, whose containers have metrics by way of this server, for http_sd_configs of Prometheus."""
    return json_response(nodes(request.app[PLANE].cluster.members, request.host))


async def up(request: web.Request) -> web.StreamResponse:
    """Run Prometheus; a stream of events."""
    settings = msgspec.json.decode(await request.read(), type=MonitoringSettings)
    return await stream(request, lambda emit: request.app[MONITORING].up(settings, emit))


async def down(request: web.Request) -> web.StreamResponse:
    """Stop Prometheus; a stream of events."""
    body = msgspec.json.decode(await request.read() or b"{}", type=DownRequest)
    return await stream(request, lambda emit: request.app[MONITORING].down(emit, volumes=body.volumes))


ROUTES: tuple[Route, ...] = (
    ("GET", "/metrics", metrics, None, None),
    ("GET", "/v1/sd", service_discovery, None, list[TargetGroup]),
    ("GET", "/v1/sd/nodes", service_discovery_of_nodes, None, list[TargetGroup]),
    ("POST", "/v1/monitoring", up, MonitoringSettings, StreamOf(Event)),
    ("POST", "/v1/monitoring/down", down, DownRequest, StreamOf(Event)),
)


def extension(ingress: Ingress, monitoring: Monitoring, gitops: Gitops) -> ApiExtension:
    """The routes, for the server's application; *ingress* is what has certificates and proxies, *gitops* repositories."""

    def attach(app: web.Application) -> None:
        app[INGRESS] = ingress
        app[MONITORING] = monitoring
        app[GITOPS] = gitops

    return ApiExtension(routes=ROUTES, readable_when_stale=frozenset({"/v1/sd"}), attach=attach)
