"""Routes of the server itself: its version, its end, its store, its events, and the doctor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

import msgspec
from aiohttp import web

from orchestrator import __version__
from orchestrator.server.api.guard import sees
from orchestrator.server.api.responses import PLANE, STOP, json_response
from orchestrator.server.backups.health import backup_health
from orchestrator.server.doctor import Check, diagnose
from orchestrator.store.transfer import dump

STARTED = time.time()
CHECKS = web.AppKey("checks", list[Callable[[], Sequence[Check]]])
"""What extensions add to `GET /v1/doctor`."""


class Version(TypedDict):
    """The server's version and that of its API, its node and its process, and when that *started* (seconds since the epoch)."""

    version: str
    api: str
    node: str
    pid: int
    started: float


class CheckRow(TypedDict):
    """A row of `pystack doctor`: *check* is the layer, *target* the node and the object on it. *repaired*: it was not well
    before."""

    check: str
    target: str
    ok: bool
    detail: str
    fix: str
    repaired: bool


def _check_row(one: Check) -> CheckRow:
    return CheckRow(check=one.check, target=one.target, ok=one.ok, detail=one.detail, fix=one.fix, repaired=one.repaired)


async def version(request: web.Request) -> web.Response:
    """The server's version, node and process."""
    return json_response(Version(version=__version__, api="v1", node=request.app[PLANE].node, pid=os.getpid(), started=STARTED))


async def shutdown(request: web.Request) -> web.Response:
    """End the server; containers run on."""
    request.app[STOP].set()
    return web.Response(status=202)


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Every change of a task's status; a stream that does not end."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for event in request.app[PLANE].dispatcher.follow():
        if not sees(request, event.stack):
            continue
        await response.write(msgspec.json.encode(event) + b"\n")
    return response


async def images_at_registries(request: web.Request) -> web.Response:
    """A list of names of images → what their registries have under each now."""
    names = msgspec.json.decode(await request.read(), type=list[str])
    found = await request.app[PLANE].planner.trust.at_registry(names)
    return json_response([msgspec.structs.asdict(one) for one in found])


async def dump_store(request: web.Request) -> web.StreamResponse:
    """Everything in the store, as of one revision: a backup, for `pystack store restore`."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for line in await dump(request.app[PLANE].store):
        await response.write(line)
    return response


async def doctor(request: web.Request) -> web.Response:
    """Checks of every layer of the networks on every node, of backups, and of the ingress; with `repair=1`, after a repair."""
    plane = request.app[PLANE]
    checks = await diagnose(
        plane.cluster, plane.state.networks, plane.inputs.vxlan_port, repair=request.query.get("repair") == "1"
    )
    for one in backup_health(plane.state, plane.backup_sources, plane.jobs.book):
        checks.append(Check(check="backup", target=one.target, ok=one.ok, detail=one.detail, fix=one.fix))
    for more in request.app[CHECKS]:
        checks += more()
    return json_response([_check_row(one) for one in sorted(checks, key=lambda c: c.ok)])
