"""Engine API: volumes. Source: Docker Engine API v1.48, section Volume."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

from agent.api import checks
from agent.api.app_keys import ENGINE, answer, body, flag, minor
from agent.api.filters import NOT_DANGLING, Filters, labelled, moment_of, truth
from agent.containers.logs import instant
from agent.contract.volume import VOLUME_DRIVERS, volume_driver
from agent.engine.engine import Engine
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError
from agent.files import used
from agent.volumes.volumes import VolumeRecord


def document(engine: Engine, record: VolumeRecord) -> dict[str, Any]:
    """A volume as Volume of the Docker Engine API."""
    return {
        "Name": record.name,
        "Driver": record.driver,
        "Mountpoint": str(engine.volumes.data(record.name)),
        "CreatedAt": record.created.replace("+00:00", "Z"),
        "Labels": record.labels or None,
        "Options": record.options or None,
        "Scope": "local",
    }


async def listing(request: web.Request) -> web.Response:
    """List volumes (VolumeList)."""
    engine, filters = request.app[ENGINE], Filters(request)
    filters.check(dangling=lambda v: truth(v, NOT_DANGLING))
    chosen = filters.chosen(
        engine.volumes.all.values(),
        {
            "label": lambda v, w: labelled(v.labels, w),
            "label!": lambda v, w: not labelled(v.labels, w),
            "name": lambda v, w: w in v.name,
            "driver": lambda v, w: v.driver == w,
            "dangling": lambda v, w: (not engine.containers.users_of_volume(v.name)) == truth(w, NOT_DANGLING),
        },
    )
    return answer({"Volumes": [document(engine, v) for v in chosen], "Warnings": None})


async def create(request: web.Request) -> web.Response:
    """Create a volume, or answer with the one that has the name (VolumeCreate)."""
    engine, payload = request.app[ENGINE], body(request)
    name, driver = payload.get("Name") or os.urandom(32).hex(), payload.get("Driver") or "local"
    anonymous = not payload.get("Name")
    checks.refuse([*checks.volume(name)])
    if payload.get("ClusterVolumeSpec"):
        raise BadRequestError("ClusterVolumeSpec: cluster volumes are the control plane's: `pystack volume create`")
    known = engine.volumes.all.get(name)
    driver_of(name, driver)
    if known and known.driver != driver:
        raise ConflictError(f"a volume with name {name} exists with driver {known.driver}: choose another name")
    labels = payload.get("Labels", {}) | ({"com.docker.volume.anonymous": ""} if anonymous else {})
    if volume_driver(driver) == "local":
        _complete(name, payload.get("DriverOpts", {}))
    record = engine.volumes.create(
        name, driver=driver, labels=labels, options=payload.get("DriverOpts", {}), anonymous=anonymous
    )
    if not known:
        _tell(engine, "create", record)
    return answer(document(engine, record), 201)


def _complete(name: str, options: dict[str, str]) -> None:
    """Raises BadRequestError if an option of the driver local lacks another. Source: Docker, `docker volume create`."""
    for key, needed in (("type", ("device",)), ("device", ("type",)), ("o", ("device", "type"))):
        if key in options and (missing := [n for n in needed if not options.get(n)]):
            raise BadRequestError(f'create {name}: missing required option: "{missing[0]}"')


def driver_of(name: str, driver: str) -> None:
    """Raises NotFoundError for an unknown *driver*, in the words that tools look for."""
    if volume_driver(driver) not in VOLUME_DRIVERS:
        raise NotFoundError(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')


def make(engine: Engine, name: str, options: dict[str, Any]) -> None:
    """Create the volume of a container's mount, with its VolumeOptions, if it does not exist yet."""
    driver = options.get("DriverConfig", {})
    if name not in engine.volumes.all:
        driver_of(name, driver.get("Name") or "local")
        _tell(
            engine,
            "create",
            engine.volumes.create(
                name, driver=driver.get("Name") or "local", labels=options.get("Labels", {}), options=driver.get("Options", {})
            ),
        )


def _tell(engine: Engine, action: str, record: VolumeRecord) -> None:
    engine.events.emit("volume", action, record.name, {"driver": record.driver})


async def inspect(request: web.Request) -> web.Response:
    """Describe a volume (VolumeInspect)."""
    engine = request.app[ENGINE]
    return answer(document(engine, engine.volumes.get(request.match_info["name"])))


async def remove(request: web.Request) -> web.Response:
    """Remove a volume that no container uses (VolumeDelete)."""
    engine, name = request.app[ENGINE], request.match_info["name"]
    if not (flag(request, "force") and name not in engine.volumes.all):
        record = engine.volumes.get(name)
        users = [engine.containers.find(user).id for user in engine.containers.users_of_volume(name)]
        engine.volumes.remove(name, users)
        _tell(engine, "destroy", record)
    return web.Response(status=204)


async def prune(request: web.Request) -> web.Response:
    """Delete anonymous volumes that no container uses; with filters all=true, and for clients before 1.42, named ones too."""
    engine, filters = request.app[ENGINE], Filters(request)
    filters.check(until=moment_of)
    everything = any(truth(v) for v in filters["all"]) or minor(request) < 42
    spare = [
        v for v in engine.volumes.all.values() if (v.anonymous or everything) and not engine.containers.users_of_volume(v.name)
    ]
    gone, freed = [], 0
    for record in filters.chosen(
        spare,
        {
            "all": lambda v, w: True,
            "label": lambda v, w: labelled(v.labels, w),
            "label!": lambda v, w: not labelled(v.labels, w),
            "until": lambda v, w: instant(v.created) < moment_of(w),
        },
    ):
        size = await asyncio.to_thread(used, engine.volumes.data(record.name))
        try:
            engine.volumes.remove(record.name, engine.containers.users_of_volume(record.name))
        except AgentError:  # it is in use or mounted by now
            continue
        _tell(engine, "destroy", record)
        gone.append(record.name)
        freed += size
    engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
    return answer({"VolumesDeleted": gone, "SpaceReclaimed": freed})
