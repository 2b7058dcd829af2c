"""Engine API: volumes. Source: Docker Engine API v1.48, section Volume."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

from agent.api import checks
from agent.api.filters import Filters, labelled, moment_of, truth
from agent.api.keys import ENGINE, answer, body, flag, minor
from agent.containers.logs import instant
from agent.engine.engine import Engine
from agent.errors import AgentError, BadRequestError, ConflictError
from agent.files import used
from agent.volumes.volumes import Stored


def document(engine: Engine, stored: Stored) -> dict[str, Any]:
    return {
        "Name": stored.name, "Driver": stored.driver, "Mountpoint": str(engine.volumes.data(stored.name)),
        "CreatedAt": stored.created.replace("+00:00", "Z"), "Labels": stored.labels or None,
        "Options": stored.options or None, "Scope": "local",
    }


async def listing(request: web.Request) -> web.Response:
    engine, filters = request.app[ENGINE], Filters(request)
    filters.check(dangling=truth)
    chosen = filters.chosen(engine.volumes.all.values(), {
        "label": lambda v, w: labelled(v.labels, w), "label!": lambda v, w: not labelled(v.labels, w),
        "name": lambda v, w: w in v.name, "driver": lambda v, w: v.driver == w,
        "dangling": lambda v, w: (not engine.users_of(v.name)) == truth(w),
    })
    return answer({"Volumes": [document(engine, v) for v in chosen], "Warnings": None})


async def create(request: web.Request) -> web.Response:
    engine, wish = request.app[ENGINE], body(request)
    name, driver = wish.get("Name") or os.urandom(32).hex(), wish.get("Driver") or "local"
    anonymous = not wish.get("Name")
    checks.refuse([*checks.volume(name)])
    if wish.get("ClusterVolumeSpec"):
        raise BadRequestError("ClusterVolumeSpec: cluster volumes are the control plane's: `pystack volume create`")
    known = engine.volumes.all.get(name)
    if known and known.driver != driver:
        raise ConflictError(f"a volume with name {name} exists with driver {known.driver}: choose another name")
    labels = wish.get("Labels", {}) | ({"com.docker.volume.anonymous": ""} if anonymous else {})
    stored = engine.volumes.create(name, driver=driver, labels=labels, options=wish.get("DriverOpts", {}), anonymous=anonymous)
    if not known:
        _tell(engine, "create", stored)
    return answer(document(engine, stored), 201)


def make(engine: Engine, name: str, options: dict[str, Any]) -> None:
    """The volume of a container's mount, with the VolumeOptions of that, where it is not there yet."""
    driver = options.get("DriverConfig", {})
    if name not in engine.volumes.all:
        _tell(engine, "create", engine.volumes.create(
            name, driver=driver.get("Name") or "local", labels=options.get("Labels", {}), options=driver.get("Options", {})))


def _tell(engine: Engine, action: str, stored: Stored) -> None:
    engine.events.emit("volume", action, stored.name, {"driver": stored.driver})


async def inspect(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return answer(document(engine, engine.volumes.get(request.match_info["name"])))


async def remove(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.match_info["name"]
    if not (flag(request, "force") and name not in engine.volumes.all):
        stored = engine.volumes.get(name)
        engine.volumes.remove(name, engine.users_of(name))
        _tell(engine, "destroy", stored)
    return web.Response(status=204)


async def prune(request: web.Request) -> web.Response:
    """Delete anonymous volumes that no container uses; with filters all=true, and for clients before 1.42, named ones too."""
    engine, filters = request.app[ENGINE], Filters(request)
    filters.check(until=moment_of)
    everything = any(truth(v) for v in filters["all"]) or minor(request) < 42
    spare = [v for v in engine.volumes.all.values() if (v.anonymous or everything) and not engine.users_of(v.name)]
    gone, freed = [], 0
    for stored in filters.chosen(spare, {
        "all": lambda v, w: True, "label": lambda v, w: labelled(v.labels, w),
        "label!": lambda v, w: not labelled(v.labels, w), "until": lambda v, w: instant(v.created) < moment_of(w),
    }):
        size = await asyncio.to_thread(used, engine.volumes.data(stored.name))
        try:
            engine.volumes.remove(stored.name, engine.users_of(stored.name))
        except AgentError:  # somebody took it meanwhile, or it is mounted
            continue
        _tell(engine, "destroy", stored)
        gone.append(stored.name)
        freed += size
    engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
    return answer({"VolumesDeleted": gone, "SpaceReclaimed": freed})
