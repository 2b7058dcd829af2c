"""Engine API: ping, version, info, events, df. Source: Docker Engine API v1.43."""

from __future__ import annotations

import asyncio
import datetime
import functools
import json
import os
import platform
import shutil
from collections.abc import Callable
from typing import Any

from aiohttp import web

from agent import files, mounts, rootless
from agent.api.filters import Filters, labelled, moment
from agent.api.images import summary
from agent.api.keys import API_VERSION, ENGINE
from agent.api.translate import LOG_DRIVERS
from agent.errors import NoSwarmError
from agent.files import used
from agent.images.pull import architecture
from agent.isolation import apparmor

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
        "SecurityOptions": ["name=seccomp,profile=builtin", *(["name=apparmor"] if apparmor.is_active() else []),
                            *(["name=rootless"] if rootless.inside() else [])],
        "DefaultRuntime": engine.runtime.name, "Runtimes": {n: {"path": n} for n in ("runc", "crun") if shutil.which(n)},
        "Labels": [f"{k}={v}" for k, v in engine.settings.labels.items()],
        "Plugins": {"Volume": ["local"], "Network": sorted(engine.networks.drivers), "Authorization": None,
                    "Log": list(LOG_DRIVERS)},
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False, "Error": "",
                  "RemoteManagers": None},
        "LoggingDriver": "json-file", "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": []},
        "BridgeNfIptables": True, "BridgeNfIp6tables": True,
        "MemoryLimit": True, "SwapLimit": True, "CpuCfsPeriod": True, "CpuCfsQuota": True, "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True, "IPv4Forwarding": True, "OomKillDisable": not engine.cgroup2, "Debug": False, "NFd": 0,
        "NGoroutines": 0, "SystemTime": datetime.datetime.now(datetime.UTC).isoformat(), "NEventsListener": 0,
        "InitBinary": "tini",
        "DriverStatus": [["Backing Filesystem", "extfs"]], "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "ExperimentalBuild": False, "LiveRestoreEnabled": True, "Isolation": "", "OSVersion": "", "DefaultAddressPools": [],
        "Warnings": engine.networks.notes,
    })


@routes.get("/system/df")
async def disk_usage(request: web.Request) -> web.Response:
    """What images, containers and volumes take on disk, in bytes. Layers are counted once, whoever shares them."""
    engine = request.app[ENGINE]
    sizes = await asyncio.to_thread(lambda: {
        "layers": used(engine.paths.layers) + used(engine.paths.images),
        **{record.id: used(engine.directory(record)) for record in list(engine.records.values())},
        **{f"volume {name}": used(engine.volumes.data(name)) for name in list(engine.volumes.all)},
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


def _concerns(kind: str, event: dict[str, Any], name: str) -> bool:
    actor = event["Actor"]
    return bool(event["Type"] == kind and (actor["ID"].startswith(name) or actor["Attributes"].get("name") == name))


@routes.get("/events")
async def events(request: web.Request) -> web.StreamResponse:
    filters = Filters(request)
    since, until = (moment(request, name) for name in ("since", "until"))
    tests: dict[str, Callable[[Any, str], bool]] = {
        "type": lambda e, v: e["Type"] == v, "event": lambda e, v: e["Action"].split(":")[0] == v,
        "label": lambda e, v: labelled(e["Actor"]["Attributes"], v), "scope": lambda e, v: e["scope"] == v,
        "daemon": lambda e, v: True, "node": lambda e, v: False, "service": lambda e, v: False,
    }
    for kind in ("container", "image", "network", "volume", "plugin", "secret", "config"):
        tests[kind] = functools.partial(_concerns, kind)
    filters.chosen((), tests)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for event in request.app[ENGINE].events.listen(since, until):
        if filters.chosen([event], tests):
            await response.write(json.dumps(event).encode() + b"\n")
    return response


@routes.post("/build/prune")
async def prune_builds(request: web.Request) -> web.Response:
    """What builds keep for the next ones goes."""
    engine = request.app[ENGINE]
    folder = engine.paths.root / "build"
    before = await asyncio.to_thread(used, folder)
    for point in mounts.below(folder):
        mounts.unmount(point)
    await asyncio.to_thread(files.remove_tree, folder)
    return web.json_response({"CachesDeleted": [], "SpaceReclaimed": before})


@routes.get("/plugins")
async def plugins(request: web.Request) -> web.Response:
    del request
    return web.json_response([])


@routes.get("/{part:swarm|services|nodes|tasks|secrets|configs}")
async def swarm(request: web.Request) -> web.Response:
    """Raises NoSwarmError: what Docker has a swarm for is the control plane's here."""
    raise NoSwarmError("This node is not a swarm manager. pystack's control plane has services, nodes, secrets and configs: "
                  "`pystack node ls`, `pystack secret ls`")
