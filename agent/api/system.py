"""Engine API: ping, version, info, events, df. Source: Docker Engine API v1.43."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from pathlib import Path

from aiohttp import web

from agent.api.images import summary
from agent.api.keys import API_VERSION, ENGINE
from agent.images.pull import architecture

routes = web.RouteTableDef()
VERSION = "0.1.0"


@routes.get("/_ping")
@routes.head("/_ping")
async def ping(request: web.Request) -> web.Response:
    del request
    return web.Response(text="OK", headers={"API-Version": API_VERSION, "OSType": "linux", "Server": "pystack"})


@routes.get("/version")
async def version(request: web.Request) -> web.Response:
    del request
    return web.json_response({
        "Version": VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": "1.24", "Os": "linux",
        "Arch": architecture(), "KernelVersion": platform.release(), "Platform": {"Name": "pystack"},
        "Components": [{"Name": "pystack", "Version": VERSION}],
    })


@routes.get("/info")
async def info(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    records = engine.records.values()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return web.json_response({
        "ID": engine.paths.tag or "default", "Name": platform.node(), "ServerVersion": VERSION,
        "Containers": len(engine.records),
        "ContainersRunning": sum(r.state == "running" for r in records),
        "ContainersPaused": sum(r.state == "paused" for r in records),
        "ContainersStopped": sum(not r.running for r in records),
        "Images": len(engine.images.everything()), "Driver": "overlay2", "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if engine.cgroup2 else "1", "NCPU": os.cpu_count(), "MemTotal": pages,
        "OperatingSystem": "Linux", "OSType": "linux", "Architecture": platform.machine(),
        "KernelVersion": platform.release(), "DockerRootDir": str(engine.paths.root),
        "SecurityOptions": ["name=seccomp,profile=builtin"], "DefaultRuntime": engine.settings.runtime,
        "Warnings": engine.networks.notes,
    })


def _used(path: Path) -> int:
    """Bytes that a tree takes on disk; what vanishes meanwhile counts for nothing."""
    total, seen = 0, set()
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


@routes.get("/system/df")
async def disk_usage(request: web.Request) -> web.Response:
    """What images, containers and volumes take on disk, in bytes. Layers are counted once, whoever shares them."""
    engine = request.app[ENGINE]
    sizes = await asyncio.to_thread(lambda: {
        "layers": _used(engine.paths.layers) + _used(engine.paths.images),
        **{record.id: _used(engine.directory(record)) for record in list(engine.records.values())},
        **{f"volume {name}": _used(engine.volumes.data(name)) for name in list(engine.volumes.all)},
    })
    in_use = engine.images_in_use()
    return web.json_response({
        "LayersSize": sizes["layers"],
        "Images": [
            {**summary(image), "Containers": sum(r.image_id == image.digest for r in engine.records.values()),
             "InUse": image.digest in in_use}
            for image in engine.images.everything()
        ],
        "Containers": [
            {"Id": r.id, "Names": [f"/{r.name}"], "State": r.state, "SizeRw": sizes.get(r.id, 0)}
            for r in engine.records.values()
        ],
        "Volumes": [
            {"Name": name, "UsageData": {"Size": sizes.get(f"volume {name}", 0), "RefCount": len(engine.users_of(name))}}
            for name in engine.volumes.all
        ],
    })


@routes.get("/events")
async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for event in request.app[ENGINE].events.listen():
        await response.write(json.dumps(event).encode() + b"\n")
    return response
