"""Engine API: volumes. Source: Docker Engine API v1.43, section Volume."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.api.filters import Filters, labelled, truth
from agent.api.keys import ENGINE, answer, body, flag
from agent.engine.engine import Engine
from agent.volumes.volumes import Stored


def document(engine: Engine, stored: Stored) -> dict[str, Any]:
    return {
        "Name": stored.name, "Driver": stored.driver, "Mountpoint": str(engine.volumes.data(stored.name)),
        "CreatedAt": stored.created, "Labels": stored.labels, "Options": stored.options, "Scope": "local",
    }


async def listing(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    chosen = Filters(request).chosen(engine.volumes.all.values(), {
        "label": lambda v, w: labelled(v.labels, w), "name": lambda v, w: w in v.name, "driver": lambda v, w: v.driver == w,
        "dangling": lambda v, w: (not engine.users_of(v.name)) == truth(w),
    })
    volumes = [document(engine, v) for v in chosen]
    return answer({"Volumes": volumes, "Warnings": []})


async def create(request: web.Request) -> web.Response:
    import os

    engine, wish = request.app[ENGINE], body(request)
    stored = engine.volumes.create(
        wish.get("Name") or os.urandom(32).hex(), driver=wish.get("Driver") or "local",
        labels=wish.get("Labels") or {}, options=wish.get("DriverOpts") or {},
    )
    return answer(document(engine, stored), status=201)


async def inspect(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return answer(document(engine, engine.volumes.get(request.match_info["name"])))


async def remove(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.match_info["name"]
    if not (flag(request, "force") and name not in engine.volumes.all):
        engine.volumes.remove(name, engine.users_of(name))
    return web.Response(status=204)


async def prune(request: web.Request) -> web.Response:
    """Delete anonymous volumes that no container uses; with filters all=true named ones too."""
    engine = request.app[ENGINE]
    everything = "true" in Filters(request)["all"]
    gone = []
    for stored in list(engine.volumes.all.values()):
        if (stored.anonymous or everything) and not engine.users_of(stored.name):
            engine.volumes.remove(stored.name, [])
            gone.append(stored.name)
    return answer({"VolumesDeleted": gone, "SpaceReclaimed": 0})
