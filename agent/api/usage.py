"""What all tasks of a node use, in one answer: a page that draws them would else ask for each."""

from __future__ import annotations

import asyncio
import time

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE
from agent.containers import usage
from agent.contract.usage import Counters

routes = web.RouteTableDef()


@routes.get("/pystack/usage")
async def tasks_usage(request: web.Request) -> web.Response:
    """The counters of each task that runs, by its name. One on the node's own network has none of network: they would be the
    node's."""
    engine = request.app[ENGINE]
    asked = [
        (r.task, f"{engine.context.cgroup_parent(r)}/{r.id}", r.process.pid, r.container.network_mode == "host")
        for r in engine.containers.records.values()
        if r.running and r.process and r.task
    ]
    found = await asyncio.to_thread(lambda: {task: _counters(group, pid, shared) for task, group, pid, shared in asked})
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


def _counters(group: str, pid: int, shared: bool) -> Counters:
    used = usage.read(group, pid)
    networks = [] if shared else list(used["networks"].values())
    disk = used["blkio_stats"]["io_service_bytes_recursive"] or ()
    return Counters(
        at=time.monotonic(),
        cpu=used["cpu_stats"]["cpu_usage"]["total_usage"],
        memory=used["memory_stats"].get("usage", 0),
        limit=used["memory_stats"].get("limit", 0),
        received=sum(n.get("rx_bytes", 0) for n in networks),
        sent=sum(n.get("tx_bytes", 0) for n in networks),
        read=sum(e["value"] for e in disk if e.get("op", "").lower() == "read"),
        written=sum(e["value"] for e in disk if e.get("op", "").lower() == "write"),
    )
