"""Engine API: the files of a container and their changes (export, changes, commit); and rename, update.

Source: Docker Engine API v1.48, ContainerExport, ContainerChanges, ImageCommit, ContainerRename, ContainerUpdate.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from agent import mounts
from agent.api import bandwidth, checks, images, translate
from agent.api.app_keys import ENGINE, answer, body, flag
from agent.api.instructions import changes as dockerfile_changes
from agent.cancellation import to_end
from agent.contract.container import Container
from agent.engine import changing, stopping
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError, of_worker
from agent.images import archive
from agent.images.reference import parse
from agent.images.types import HealthConfig, RunConfig
from agent.trees import process

MOUNT_POINTS = {
    "/.dockerenv",
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/sbin/pystack-init",
}
FOLDERS = {"/etc", "/sbin"}


@contextlib.asynccontextmanager
async def _mounted(engine: Engine, record: Record) -> AsyncIterator[Path]:
    """The container's layers as one tree, without its mounts."""
    async with engine.containers.lock(record):
        there = mounts.is_mounted(engine.paths.bundle(record.id) / "rootfs")
        rootfs = engine.context.mount_root(record)
        try:
            yield rootfs
        finally:
            if not there:
                mounts.unmount(rootfs)


def _output(*words: str) -> AsyncIterator[bytes]:
    """A tar of files of a container's. Raises AgentError if it fails."""
    return process.output("packing", words, lambda reply: of_worker(reply, AgentError))


async def export(request: web.Request) -> web.StreamResponse:
    """Stream the file tree of a container as a tar archive (ContainerExport)."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    async with _mounted(engine, record) as rootfs:
        await response.prepare(request)
        async for data in _output("export", str(rootfs), str(record.ids)):
            await response.write(data)
    engine.containers.tell(record, "export")
    return response


async def changes(request: web.Request) -> web.Response:
    """List the files that differ from the image (ContainerChanges)."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    point = engine.paths.bundle(record.id) / "diff"
    point.mkdir(parents=True, exist_ok=True)
    mounts.layers(point, engine.images.lower(engine.images.image(record.image_id)))
    try:
        reply = await process.asked("packing", ("changes", str(engine.paths.container(record.id) / "upper"), str(point)))
    finally:
        mounts.unmount(point)
        point.rmdir()
    if "error" in reply:
        raise of_worker(reply, AgentError)
    found = [(f"/{path}", kind) for path, kind in reply["changes"]]
    # the engine's own mount points are not changes of the container's, nor are the directories of those only
    own = [(path, kind) for path, kind in found if path not in MOUNT_POINTS]
    kept = {path.rpartition("/")[0] for path, _ in own}
    return answer([{"Path": p, "Kind": k} for p, k in own if k != 0 or p not in FOLDERS or p in kept])


async def commit(request: web.Request) -> web.Response:
    """Make an image of the container (ImageCommit): its image's layers, and its own writable layer on top."""
    engine, query = request.app[ENGINE], request.query
    record = engine.containers.find(query.get("container", ""))
    config = msgspec.convert(body(request), RunConfig)  # a container's configuration, whose non-empty fields count
    given = changes_over(config, dockerfile_changes(query.getall("changes", [])))
    reference = parse(f"{query['repo']}:{query['tag']}" if query.get("tag") else query["repo"]) if query.get("repo") else None
    pausing = record.state == "running" and (flag(request, "pause") or "pause" not in query)
    if pausing:
        await stopping.pause(engine.context, record)
    try:
        base = engine.images.image(record.image_id)
        image = await archive.commit(
            engine.images,
            base,
            record.container,
            _output("layer", str(engine.paths.container(record.id) / "upper"), mounts.overlay_attribute("opaque")),
            _whole(base.config.config or RunConfig(), record.container, given),
            author=query.get("author", ""),
            comment=query.get("comment", ""),
        )
    finally:
        if pausing:
            await to_end(stopping.resume(engine.context, record))
    engine.committed[image.id] = record
    if reference:
        before = engine.images.names.get(reference.name, "")
        engine.images.tag(reference, image.digest)
        images.displaced(engine, before)
    else:
        engine.images.keep_untagged(image.digest)
    engine.containers.tell(
        record, "commit", {"comment": query.get("comment", ""), "imageID": image.id, "imageRef": query.get("repo", "")}
    )
    return answer({"Id": image.id}, 201)


def changes_over(below: RunConfig, above: RunConfig) -> RunConfig:
    """*below* overridden by *above*; tables and variables are merged by their entries."""
    fields: dict[str, Any] = {}
    for name in RunConfig.__struct_fields__:
        old, new = getattr(below, name), getattr(above, name)
        if isinstance(old, dict) and isinstance(new, dict):
            fields[name] = old | new
        elif name in ("env", "on_build") and old and new:
            fields[name] = (*old, *new)
        elif new:
            fields[name] = new
    return msgspec.structs.replace(below, **fields)


def _whole(image: RunConfig, container: Container, given: RunConfig) -> RunConfig:
    """The configuration of the new image that a commit does not take from *container*."""
    second = 10**9
    own = RunConfig(
        labels=dict(container.labels) or None,
        exposed_ports={p: {} for p in container.expose} or None,
        volumes={m.target: {} for m in container.mounts if m.kind == "volume" and not m.source} or None,
        stop_signal=container.stop_signal,
        healthcheck=HealthConfig(
            test=check.test,
            interval=int(check.interval_s * second),
            timeout=int(check.timeout_s * second),
            retries=check.retries,
            start_period=int(check.start_period_s * second),
        )
        if (check := container.healthcheck)
        else None,
    )
    tables = RunConfig(labels=image.labels, exposed_ports=image.exposed_ports, volumes=image.volumes)
    return changes_over(changes_over(tables, own), given)


async def rename(request: web.Request) -> web.Response:
    """Give a container another name (ContainerRename)."""
    engine, name = request.app[ENGINE], request.query.get("name", "").lstrip("/")
    record = engine.containers.find(request.match_info["name"])
    if not name:
        raise BadRequestError("Neither old nor new names may be empty")
    if name == record.name:
        raise BadRequestError("Renaming a container with the same name as its current name")
    if record.task:
        raise ConflictError(f"container {record.name} is a task of stack {record.stack}: its file says what it is called")
    try:
        checks.name(name, f"/{name}")
        changing.rename(engine.context, record, name)
    except (BadRequestError, ConflictError) as error:
        raise type(error)(f"Error when allocating new name: {error}") from None
    return web.Response(status=204)


UPDATES = {
    "CpuShares": "cpu_shares",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpusetCpus": "cpuset",
    "CpusetMems": "cpuset_mems",
    "Memory": "memory",
    "MemorySwap": "memory_swap",
    "MemoryReservation": "memory_reservation",
    "PidsLimit": "pids",
    "BlkioWeight": "blkio_weight",
    "CpuBurst": "cpu_burst",
    "CpuRealtimePeriod": "cpu_rt_period",
    "CpuRealtimeRuntime": "cpu_rt_runtime",
}


OTHER_UPDATES = ("NanoCpus", "RestartPolicy", "HugepageLimits", *translate.RATES)


async def update(request: web.Request) -> web.Response:
    """Other limits and another restart policy, at once where it runs."""
    engine, payload = request.app[ENGINE], body(request)
    record = engine.containers.find(request.match_info["name"])
    c = record.container
    if record.task:
        raise ConflictError(f"container {record.name} is a task of stack {record.stack}: change its file, and `pystack up`")
    known = len(record.notes)
    limits = payload.get("Bandwidth") or ()
    payload = {k: v for k, v in payload.items() if v and (k in UPDATES or k in OTHER_UPDATES)}
    policy = payload.get("RestartPolicy", {})
    if policy.get("Name") and record.auto_remove:
        raise ConflictError(
            f"Cannot update container {record.id}: Restart policy cannot be updated because AutoRemove is enabled for the "
            "container"
        )
    if c.memory_swap > 0 and payload.get("Memory", 0) > c.memory_swap and not payload.get("MemorySwap"):
        raise ConflictError(
            f"Cannot update container {record.id}: Memory limit should be smaller than already set memoryswap limit, update "
            "the memoryswap at the same time"
        )
    held = {"CpuPeriod": c.cpu_period, "CpuQuota": c.cpu_quota}
    for word in ("Period", "Quota"):
        if payload.get("NanoCpus") and held[f"Cpu{word}"]:
            raise ConflictError(
                f"Cannot update container {record.id}: Conflicting options: Nano CPUs cannot be updated as CPU {word} has "
                "already been set"
            )
        if payload.get(f"Cpu{word}") and c.cpus:
            raise ConflictError(
                f"Cannot update container {record.id}: Conflicting options: CPU {word} cannot be updated as NanoCPUs has "
                "already been set"
            )
    checks.update({"Memory": c.memory, "MemorySwap": c.memory_swap} | payload)
    fields: dict[str, object] = {UPDATES[key]: value for key, value in payload.items() if key in UPDATES}
    if fields.get("pids", 0) == -1:
        fields["pids"] = 0
    if "NanoCpus" in payload:
        fields["cpus"] = payload["NanoCpus"] / 1e9
    if policy.get("Name"):
        fields |= {"restart": policy["Name"], "restart_max": policy.get("MaximumRetryCount", 0)}
    fields |= {} if (rates := translate.rates(c.blkio, payload)) is None else {"blkio": rates}
    if "HugepageLimits" in payload:
        fields["hugepages"] = tuple(sorted((dict(c.hugepages) | payload["HugepageLimits"]).items()))
    await bandwidth.update(engine, record, limits)
    await changing.update(engine.context, record, fields)
    if record.asked:
        host = record.asked["HostConfig"] | payload
        engine.containers.transition(record, asked=record.asked | {"HostConfig": host})
    return answer({"Warnings": record.notes[known:] or None})
