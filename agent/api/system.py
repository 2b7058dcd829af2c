"""Engine API: ping, version, info, events, df. Source: Docker Engine API v1.43."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from agent import rootless
from agent.api import describe, images, versions, volumes
from agent.api.app_keys import ENGINE, answer, minor
from agent.api.checks import LOG_OPTIONS
from agent.api.filters import Filters, labelled, moment
from agent.containers import runtimes as runtimes_of
from agent.contract.times import timestamp
from agent.contract.version import VERSION
from agent.contract.volume import VOLUME_DRIVERS
from agent.engine.engine import Engine
from agent.errors import BadRequestError, NotFoundError
from agent.files import used
from agent.images.platforms import architecture
from agent.isolation import apparmor, selinux


async def ping(request: web.Request) -> web.Response:
    """Answer OK (SystemPing)."""
    del request
    return web.Response(
        text="OK",
        headers={
            "Builder-Version": "1",
            "Swarm": "inactive",
            "Pragma": "no-cache",
            "Cache-Control": "no-cache, no-store, must-revalidate",
        },
    )


def _versions() -> dict[str, str]:
    """The server's details in `docker version`."""
    return {
        "ApiVersion": versions.text(versions.NEWEST),
        "MinAPIVersion": versions.text(versions.OLDEST),
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": platform.release(),
        "GoVersion": f"python{platform.python_version()}",
        "GitCommit": "",
        "BuildTime": "",
    }


async def version(request: web.Request) -> web.Response:
    """The versions of the engine, its runtime and conmon (SystemVersion)."""
    runtime = request.app[ENGINE].runtime
    tools = [
        {"Name": name, "Version": await version_of(program), "Details": {}}
        for name, program in ((runtime.name, runtime.program), ("conmon", runtime.conmon))
    ]
    engine = {"Name": "Engine", "Version": VERSION, "Details": {**_versions(), "Experimental": "false"}}
    return answer({"Platform": {"Name": "pystack"}, "Version": VERSION, **_versions(), "Components": [engine, *tools]})


@functools.cache
def _version_of(program: str) -> str:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = output.split("\n", 1)[0].split()
    return words[-1] if words else ""


async def version_of(program: str) -> str:
    """The version of *program*, by its own output; it is run once."""
    return await asyncio.to_thread(_version_of, program)


async def info(request: web.Request) -> web.Response:
    """Describe the node and the engine (SystemInfo)."""
    engine = request.app[ENGINE]
    runtime_version = await version_of(engine.runtime.program)
    return answer({**_host_info(engine), **_engine_info(engine), **_runtime_info(engine, runtime_version), **_SAME_EVERYWHERE})


def _host_info(engine: Engine) -> dict[str, Any]:
    """The keys of SystemInfo that describe the host: memory in bytes, time by RFC 3339."""
    return {
        "Name": platform.node(),
        "CgroupVersion": "2" if engine.context.cgroup2 else "1",
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "OperatingSystem": _system_name(),
        "OSVersion": _release().get("VERSION_ID", ""),
        "Architecture": platform.machine(),
        "KernelVersion": platform.release(),
        "SecurityOptions": [
            "name=seccomp,profile=builtin",
            *(["name=apparmor"] if apparmor.is_active() else []),
            *(["name=selinux"] if engine.context.selinux else []),
            *(["name=rootless"] if rootless.inside() else []),
            *(["name=cgroupns"] if engine.context.cgroup2 else []),
        ],
        "OomKillDisable": not engine.context.cgroup2,
        "SystemTime": timestamp(),
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
    }


def _engine_info(engine: Engine) -> dict[str, Any]:
    """The keys of SystemInfo about the engine: its contents and settings."""
    records = engine.containers.records.values()
    return {
        "ID": engine.paths.tag or "default",
        "ServerVersion": VERSION,
        "Containers": len(records),
        "ContainersRunning": sum(r.running and r.state != "paused" for r in records),
        "ContainersPaused": sum(r.state == "paused" for r in records),
        "ContainersStopped": sum(not r.running for r in records),
        "Images": len(engine.images.everything()),
        "DockerRootDir": str(engine.paths.root),
        "Labels": [f"{k}={v}" for k, v in engine.settings.labels.items()],
        "Plugins": {
            "Volume": sorted(VOLUME_DRIVERS),
            "Network": sorted({*engine.networks.drivers, "host", "null"}),
            "Authorization": None,
            "Log": list(LOG_OPTIONS),
        },
        "RegistryConfig": _registries(engine),
        "NEventsListener": engine.events.listeners,
        "DefaultAddressPools": [{"Base": pool, "Size": 24} for pool in engine.settings.address_pools if ":" not in pool],
        "Warnings": [*engine.networks.notes, *_unlabelled(engine)] or None,
    }


def _unlabelled(engine: Engine) -> list[str]:
    """Why containers have no SELinux labels though SELinux is on."""
    why = (
        selinux.found()[1]
        if engine.settings.selinux == "auto"
        else "selinux is off in config.yml"
        if selinux.is_enforcing()
        else ""
    )
    return [f"containers have no SELinux labels: {why}"] if why else []


def _runtime_info(engine: Engine, version: str) -> dict[str, Any]:
    """The keys of SystemInfo that describe the OCI runtimes; *version* is that of the node's own."""
    runtime = engine.runtime
    runtimes = {
        name: {"path": one.path, **({"runtimeArgs": list(one.arguments)} if one.arguments else {})}
        for name, one in runtime.programs.items()
    } | {runtimes_of.SHIM: {"path": runtime.program}}
    return {
        "DefaultRuntime": runtime.name,
        "Runtimes": runtimes,
        "RuncCommit": {"ID": version, "Expected": ""},
    }


_SAME_EVERYWHERE: dict[str, Any] = {
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Native Overlay Diff", "true"]],
    "CgroupDriver": "cgroupfs",
    "OSType": "linux",
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "LoggingDriver": "json-file",
    "IndexServerAddress": "https://index.docker.io/v1/",
    **dict.fromkeys(("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"), True),
    **dict.fromkeys(("IPv4Forwarding", "LiveRestoreEnabled", "BridgeNfIptables", "BridgeNfIp6tables"), True),
    **dict.fromkeys(("KernelMemory", "KernelMemoryTCP", "Debug", "ExperimentalBuild"), False),
    "NFd": 0,
    "NGoroutines": 0,
    "InitBinary": "tini",
    "Isolation": "",
    "ContainerdCommit": {"ID": "", "Expected": ""},
    "InitCommit": {"ID": "", "Expected": ""},
    "GenericResources": None,
    "ProductLicense": "",
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
}
"""The keys of SystemInfo that are the same on each node."""


@functools.cache
def _release() -> dict[str, str]:
    """Source: os-release(5)."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _system_name() -> str:
    return _release().get("PRETTY_NAME", "Linux")


def _registries(engine: Engine) -> dict[str, Any]:
    known = {name: one for name, one in engine.settings.registries.items() if name != "docker.io"}
    hub = engine.settings.registries.get("docker.io")
    index = {
        name: {"Name": name, "Mirrors": list(one.mirrors), "Secure": not one.insecure, "Official": False}
        for name, one in known.items()
    }
    index["docker.io"] = {"Name": "docker.io", "Mirrors": list(hub.mirrors) if hub else [], "Secure": True, "Official": True}
    return {
        "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
        "IndexConfigs": index,
        "Mirrors": index["docker.io"]["Mirrors"],
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
    }


KINDS = ("container", "image", "volume", "build-cache")


async def disk_usage(request: web.Request) -> web.Response:
    """The disk usage of images, containers and volumes in bytes. A shared layer counts once."""
    engine = request.app[ENGINE]
    wanted = request.query.getall("type", []) or list(KINDS)
    if unknown := [w for w in wanted if w not in KINDS]:
        raise BadRequestError(f"unknown object type: {unknown[0]}: there is {', '.join(KINDS)}")
    document: dict[str, Any] = {}
    if "image" in wanted:
        document |= await _images_usage(engine, minor(request))
    if "container" in wanted:
        records = sorted(engine.containers.records.values(), key=lambda r: r.created, reverse=True)
        version = minor(request)
        document["Containers"] = [
            describe.summary(engine, r, version) | await asyncio.to_thread(describe.sizes, engine, r) for r in records
        ]
    if "volume" in wanted:
        sizes = await asyncio.to_thread(lambda: {n: used(engine.volumes.data(n)) for n in list(engine.volumes.all)})
        document["Volumes"] = [
            volumes.document(engine, v)
            | {"UsageData": {"Size": sizes.get(v.name, 0), "RefCount": len(engine.containers.users_of_volume(v.name))}}
            for v in engine.volumes.all.values()
        ]
    if "build-cache" in wanted:
        from agent.api import build

        document["BuildCache"] = build.usage(request)
    return answer(document | ({"BuilderSize": 0} if minor(request) < 44 else {}))


async def _images_usage(engine: Engine, version: int) -> dict[str, Any]:
    everything = engine.images.everything()
    await engine.sizes.learn(everything)
    layers = await asyncio.to_thread(lambda: used(engine.paths.layers) + used(engine.paths.images))
    in_use = engine.context.images_in_use()
    rows = [
        images.summary(i, engine.sizes.image(i), version)
        | {
            "Containers": sum(r.image_id == i.digest for r in engine.containers.records.values()),
            "SharedSize": images.shared(engine, i),
            "InUse": i.digest in in_use,
        }
        for i in everything
    ]
    return {"LayersSize": layers, "Images": rows}


def _concerns(kind: str, event: dict[str, Any], name: str) -> bool:
    return bool(event["Type"] == kind and _named(event, name))


def _named(event: dict[str, Any], name: str) -> bool:
    """Whether the ID or the name of what an event is about begins with *name*."""
    actor = event["Actor"]
    return bool(name) and (actor["ID"].startswith(name) or actor["Attributes"].get("name", "").startswith(name))


def _of_image(event: dict[str, Any], name: str) -> bool:
    """Of an image itself, or of a container that is made of it; with its tag or without."""
    attributes = event["Actor"]["Attributes"]
    called = attributes.get("name" if event["Type"] == "image" else "image", "")
    if event["Type"] not in ("image", "container"):
        return False
    return name in (event["Actor"]["ID"], called, _bare(called)) or (name == f"{called}:latest" and _bare(called) == called)


def _bare(name: str) -> str:
    """A name without its tag."""
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


TESTS: dict[str, Callable[[Any, str], bool]] = {
    "type": lambda e, v: e["Type"] == v,
    "event": lambda e, v: v in (e["Action"], e["Action"].split(":")[0]),
    "label": lambda e, v: labelled(e["Actor"]["Attributes"], v),
    "scope": lambda e, v: e["scope"] == v,
    "daemon": _named,
    "node": lambda e, v: False,
    "service": lambda e, v: False,
    "image": _of_image,
    **{kind: functools.partial(_concerns, kind) for kind in ("container", "network", "volume", "plugin", "secret", "config")},
}


async def events(request: web.Request) -> web.StreamResponse:
    """Stream past and coming events as lines of JSON (SystemEvents)."""
    filters = Filters(request)
    since, until = (moment(request, name) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise BadRequestError("`since` time cannot be after `until` time")
    filters.chosen((), TESTS)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for event in request.app[ENGINE].events.listen(since, until):
        if filters.chosen([event], TESTS):
            await response.write(msgspec.json.encode(event) + b"\n")
    return response


async def no_plugin(request: web.Request) -> web.StreamResponse:
    """Raises NotFoundError."""
    name = request.match_info["rest"].partition("/")[0]
    raise NotFoundError(f'plugin "{name}" not found: drivers of networks and volumes are Python packages here, and no plug-ins')


async def no_checkpoint(request: web.Request) -> web.StreamResponse:
    """Raises BadRequestError."""
    name = request.app[ENGINE].containers.find(request.match_info["name"]).name
    raise BadRequestError(f"container {name}: checkpoints are not known here: `docker commit` keeps what it wrote")


async def plugins(request: web.Request) -> web.Response:
    """List plugins: there are none (PluginList)."""
    Filters(request).chosen((), dict.fromkeys(("capability", "enabled"), lambda plugin, value: True))
    return answer([])
