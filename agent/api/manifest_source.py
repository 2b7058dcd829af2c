"""The API by which a control plane has a node read its manifest from etcd, and waits until it did."""

from __future__ import annotations

from aiohttp import web

from agent.api.app_keys import CONVERGER, MANIFEST_WATCHER, given
from agent.contract.manifest import EtcdCredentials

routes = web.RouteTableDef()


@routes.put("/pystack/manifest-source")
async def enable(request: web.Request) -> web.Response:
    """Follow the manifest in etcd with the given credentials."""
    await request.app[MANIFEST_WATCHER].enable(await given(request, EtcdCredentials))
    return web.Response(status=204)


@routes.delete("/pystack/manifest-source")
async def disable(request: web.Request) -> web.Response:
    """Follow the manifest in etcd no longer."""
    await request.app[MANIFEST_WATCHER].disable()
    return web.Response(status=204)


@routes.post("/pystack/manifest-source/{digest}")
async def wait_applied(request: web.Request) -> web.Response:
    """Answers when the manifest with this digest was taken. It is the present one, as the control plane says with this."""
    await request.app[MANIFEST_WATCHER].wait_applied(request.match_info["digest"])
    request.app[CONVERGER].confirm()
    return web.Response(status=204)
