"""The API of the control plane: it sends a node its manifest, and reads its status."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import shutil
import time

import msgspec
from aiohttp import web

from agent import quotas, rootless
from agent.api.app_keys import CONVERGER, answer, flag, given
from agent.containers import hardware, usage
from agent.contract.container import Container
from agent.contract.manifest import Delta, Manifest, apply_delta
from agent.contract.network import HEARTBEAT
from agent.contract.printable import quoted
from agent.contract.sealing import known_key, make_key
from agent.contract.status import NodeInfo, TaskStatus
from agent.contract.version import VERSION
from agent.engine import creating
from agent.engine.networks.host import DEFAULT_MTU, addresses_of_host, mtu_of
from agent.engine.records import Record
from agent.errors import BadRequestError, ConflictError
from agent.images.platforms import architecture

SHORTEST_S = 0.1
"""Seconds between two heartbeats at least."""
LONGEST_S = 3600.0
"""How long a machine may take to be emptied before it goes down."""
routes = web.RouteTableDef()


@routes.put("/pystack/manifest")
async def put(request: web.Request) -> web.Response:
    """Make this node run the given manifest."""
    await request.app[CONVERGER].apply(await given(request, Manifest))
    return web.Response(status=204)


@routes.get("/pystack/info")
async def info(request: web.Request) -> web.Response:
    """The NodeInfo of the node. Query: *underlay*, its address as other nodes know it."""
    underlay = request.query.get("underlay", "")
    try:
        mtu = await asyncio.to_thread(mtu_of, underlay)
    except OSError:
        raise BadRequestError(f"underlay={quoted(underlay)}: an IP address") from None
    engine = request.app[CONVERGER].engine
    features = engine.networks.host.capabilities.features | ({"rootless"} if rootless.inside() else set())
    if not await asyncio.to_thread(quotas.problem, engine.paths.root):
        features |= {quotas.FEATURE}
    if usage.keeps_pressure():
        features |= {"pressure"}
    for watch in (engine.disk, engine.reserve):  # room that was made a moment ago counts
        with contextlib.suppress(OSError):
            watch.look_now()
    found = NodeInfo(
        hostname=platform.node(),
        arch=architecture(),
        cpus=float(os.cpu_count() or 1),
        version=VERSION,
        memory=max(0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - engine.settings.reserve.memory_bytes),
        labels=tuple(sorted(engine.settings.labels.items())),
        features=tuple(sorted(features)),
        clock=time.time(),
        links=tuple(sorted(engine.networks.host.links())),
        drivers=tuple(sorted(engine.networks.drivers)),
        mtu=mtu or DEFAULT_MTU,
        has_underlay_address=bool(mtu),
        addresses=tuple(sorted(await asyncio.to_thread(addresses_of_host, engine.paths.link_prefix))),
        ssh_key=await asyncio.to_thread(engine.volumes.key),
        seal_key=known_key(engine.paths.keys, "seal"),
        tunnel_key=known_key(engine.paths.keys, "tunnel"),
        devices=tuple(sorted(await asyncio.to_thread(hardware.found))),
        leaving=request.app[CONVERGER].departure.begun,
        problem=engine.disk.problem or engine.reserve.problem,
        missing=tuple(p for p in ("runc", "conmon", "nft") if not shutil.which(p)),
    )
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.post("/pystack/departure")
async def depart(request: web.Request) -> web.Response:
    """The machine of this node is to go down: have the control plane take its tasks away, and wait for that. Query: *within*,
    how many seconds at most. The answer says whether the node was *emptied*, as far as other nodes can have its tasks."""
    within_s = float(request.query.get("within", "60"))
    if not 0 <= within_s <= LONGEST_S:
        raise BadRequestError(f"within={within_s}: a number of seconds, up to {LONGEST_S:g}")
    return answer({"emptied": await request.app[CONVERGER].departure.begin(within_s)})


@routes.post("/pystack/departure/done")
async def departed(request: web.Request) -> web.Response:
    """The control plane has taken away what can run elsewhere."""
    request.app[CONVERGER].departure.end()
    return web.Response(status=204)


@routes.post("/pystack/keys/{purpose:seal|tunnel}")
async def key(request: web.Request) -> web.Response:
    """This node's public key for a purpose, made at the first call."""
    made = await asyncio.to_thread(make_key, request.app[CONVERGER].engine.paths.keys, request.match_info["purpose"])
    return answer({"key": made})


@routes.patch("/pystack/manifest")
async def change(request: web.Request) -> web.Response:
    """Apply a Delta; 409 if its base is not the present manifest: the whole must be sent then."""
    converger = request.app[CONVERGER]
    try:
        manifest = apply_delta(converger.manifest, await given(request, Delta))
    except ValueError as error:
        raise ConflictError(str(error)) from None
    await converger.apply(manifest)
    return web.Response(status=204)


@routes.post("/pystack/containers")
async def create(request: web.Request) -> web.Response:
    """Create a container that is not a task of the manifest, from a whole Container. Query: name, stack, service (whose one-off
    container it is), auto_remove."""
    engine = request.app[CONVERGER].engine
    container = await given(request, Container)
    base = Record(
        id="",
        name="",
        container=container,
        created="",
        stack=request.query.get("stack", ""),
        service=request.query.get("service", ""),
    )
    record = creating.create(
        engine.context, container, name=request.query.get("name", ""), record=base, auto_remove=flag(request, "auto_remove")
    )
    return answer({"Id": record.id}, status=201)


@routes.get("/pystack/status")
async def get(request: web.Request) -> web.Response:
    """The status of this node and of each task, as JSON (NodeStatus)."""
    status = request.app[CONVERGER].status()
    return web.Response(body=msgspec.json.encode(status), content_type="application/json")


@routes.get("/pystack/status/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    """One TaskStatus a line: first those of all tasks, then each that changes. `{}` follows those of all tasks, and is sent
    when the node's info has changed: it is to be read then. Query: *heartbeat*, after how many idle seconds an empty line shows
    that the agent is alive; *beats*: the line is `{"beat": N}`, which the control plane acknowledges, as long as the
    node has tasks that must not run twice."""
    converger = request.app[CONVERGER]
    pause = float(request.query.get("heartbeat", "inf"))
    if not pause >= SHORTEST_S:
        raise BadRequestError(f"heartbeat={pause}: a number of seconds, from {SHORTEST_S}")
    queue: asyncio.Queue[TaskStatus | None] = asyncio.Queue()
    converger.listeners.add(queue.put_nowait)
    beats = {} if math.isinf(pause) else {HEARTBEAT: f"{pause:g}"}
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", **beats})
    try:
        await response.prepare(request)
        await response.write(b"".join(msgspec.json.encode(s) + b"\n" for s in converger.status().tasks) + b"{}\n")
        while True:
            try:
                async with asyncio.timeout(None if math.isinf(pause) else pause):
                    batch = [await queue.get()]
            except TimeoutError:
                numbered = flag(request, "beats") and any(t.strict for t in converger.tasks.values())
                await response.write(b'{"beat":%d}\n' % converger.lease.beat() if numbered else b"\n")
                continue
            while not queue.empty():
                batch.append(queue.get_nowait())
            await response.write(b"".join((msgspec.json.encode(s) if s else b"{}") + b"\n" for s in batch))
    finally:
        converger.listeners.discard(queue.put_nowait)


@routes.post("/pystack/heard/{number:[0-9]{1,18}}")
async def acknowledge_beat(request: web.Request) -> web.Response:
    """The control plane acknowledges this beat of the stream of statuses. The answer says whether the lease had *ended* before:
    tasks that must not run twice then start with the next manifest alone."""
    lease = request.app[CONVERGER].lease
    lease.answered(int(request.match_info["number"]))
    return answer({"ended": lease.ended})
