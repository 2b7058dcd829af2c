"""Engine API: what a container holds and what it wrote, taken out whole: export, changes, commit; and rename, update.

Source: Docker Engine API v1.43, ContainerExport, ContainerChanges, ImageCommit, ContainerRename, ContainerUpdate.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from aiohttp import web

from agent import mounts
from agent.api.instructions import changes as dockerfile_changes
from agent.api.keys import ENGINE, answer, body, flag
from agent.containers import layer
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError
from agent.images import archive
from agent.images.reference import parse

MOUNT_POINTS = {"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sbin/pystack-init"}
FOLDERS = {"/etc", "/sbin"}


@contextlib.asynccontextmanager
async def _mounted(engine: Engine, record: Record) -> AsyncIterator[Path]:
    """The container's layers as one tree, without what is mounted inside."""
    async with engine._lock(record):
        there = mounts.is_mounted(engine.bundle(record) / "rootfs")
        rootfs = engine.mount_root(record)
        try:
            yield rootfs
        finally:
            if not there:
                mounts.unmount(rootfs)


async def _output(*words: str) -> AsyncIterator[bytes]:
    """What a module of ours writes to its standard output. Raises AgentError where it fails."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-E", "-s", "-m", *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )
    assert child.stdout and child.stderr
    try:
        while data := await child.stdout.read(1 << 18):
            yield data
        said = (await child.stderr.read()).decode(errors="replace").strip().splitlines()
        if await child.wait():
            raise AgentError(said[-1] if said else "the copy ended without a word")
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def export(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    record = engine.find(request.match_info["name"])
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    async with _mounted(engine, record) as rootfs:
        await response.prepare(request)
        async for data in _output("agent.containers.layer", str(rootfs), str(record.ids)):
            await response.write(data)
    return response


async def changes(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    record = engine.find(request.match_info["name"])
    point = engine.bundle(record) / "diff"
    point.mkdir(parents=True, exist_ok=True)
    mounts.layers(point, engine.images.lower(engine.images.image(record.image_id)))
    try:
        found = await asyncio.to_thread(lambda: list(layer.changes(engine.directory(record) / "upper", point)))
    finally:
        mounts.unmount(point)
        point.rmdir()
    # what we put there to mount on is no change of the container's; nor is a folder, for that alone
    own = [(path, kind) for path, kind in found if path not in MOUNT_POINTS]
    kept = {path.rpartition("/")[0] for path, _ in own}
    return answer([{"Path": p, "Kind": k} for p, k in own if k != 0 or p not in FOLDERS or p in kept])


async def commit(request: web.Request) -> web.Response:
    """An image of what the container is now: its image's layers, and what it wrote as one more."""
    engine, query = request.app[ENGINE], request.query
    record = engine.find(query.get("container", ""))
    wish = body(request)  # a container's configuration, of which what it says counts
    given = dockerfile_changes(query.getall("changes", []))
    fields = {"Cmd": "cmd", "Entrypoint": "entrypoint", "Env": "env", "User": "user", "WorkingDir": "working_dir",
              "Labels": "labels", "Volumes": "volumes", "ExposedPorts": "exposed_ports", "StopSignal": "stop_signal"}
    said = {ours: tuple(v) if isinstance(v, list) else v for theirs, ours in fields.items() if (v := wish.get(theirs))}
    for key, value in said.items():
        if not getattr(given, key):
            given = msgspec.structs.replace(given, **{key: value})
    pausing = record.state == "running" and (flag(request, "pause") or "pause" not in query)
    if pausing:
        await engine.pause(record)
    try:
        image = await archive.commit(
            engine.images, engine.images.image(record.image_id), record.container,
            _output("agent.containers.layer", str(engine.directory(record) / "upper")),
            given, author=query.get("author", ""), comment=query.get("comment", ""),
        )
    finally:
        if pausing:
            await engine.resume(record)
    if name := query.get("repo"):
        engine.images.tag(parse(f"{name}:{query['tag']}" if query.get("tag") else name), image.digest)
    else:
        engine.images.keep_untagged(image.digest)
    engine.events.emit("container", "commit", record.id, {"name": record.name})
    return answer({"Id": image.id}, status=201)


async def rename(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.query.get("name", "").lstrip("/")
    record = engine.find(request.match_info["name"])
    if not name:
        raise BadRequestError("name is missing: what shall it be called?")
    if record.task:
        raise ConflictError(f"container {record.name} is a task of stack {record.stack}: its file says what it is called")
    engine.rename(record, name)
    return web.Response(status=204)


UPDATES = {"CpuShares": "cpu_shares", "CpuPeriod": "cpu_period", "CpuQuota": "cpu_quota", "CpusetCpus": "cpuset",
           "Memory": "memory", "MemorySwap": "memory_swap", "MemoryReservation": "memory_reservation", "PidsLimit": "pids"}


async def update(request: web.Request) -> web.Response:
    """Other limits and another restart policy, at once where it runs."""
    engine, wish = request.app[ENGINE], body(request)
    record = engine.find(request.match_info["name"])
    if record.task:
        raise ConflictError(f"container {record.name} is a task of stack {record.stack}: change its file, and `pystack up`")
    fields: dict[str, object] = {ours: wish[theirs] for theirs, ours in UPDATES.items() if wish.get(theirs)}
    if wish.get("NanoCpus"):
        fields["cpus"] = wish["NanoCpus"] / 1e9
    if policy := wish.get("RestartPolicy"):
        fields |= {"restart": policy.get("Name") or "no", "restart_max": policy.get("MaximumRetryCount") or 0}
    await engine.update(record, fields)
    return answer({"Warnings": record.notes})
