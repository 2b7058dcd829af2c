"""Engine API: containers. Source: Docker Engine API v1.43, section Container."""

from __future__ import annotations

import asyncio
import json
import re

from aiohttp import web

from agent.api import describe, shapes, translate
from agent.api.filters import Filters, labelled, moment, pattern, stamp, truth
from agent.api.hijack import frame
from agent.api.keys import ENGINE, body, flag, number, seconds
from agent.containers import logs
from agent.engine.engine import Engine, signal_number
from agent.engine.records import Record
from agent.errors import BadRequestError
from agent.files import used
from agent.images.reference import parse
from agent.trees.extract import quoted

routes = web.RouteTableDef()


def _record(request: web.Request) -> Record:
    return request.app[ENGINE].find(request.match_info["name"])


@routes.get("/containers/json")
async def listing(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    filters = Filters(request)
    records = sorted(engine.records.values(), key=lambda r: r.created, reverse=True)
    if not (flag(request, "all") or filters["status"] or filters["exited"] or request.query.get("limit", "-1") != "-1"):
        records = [r for r in records if r.running]

    def derived(record: Record, image: str) -> bool:
        wanted = image.removeprefix("sha256:")
        if known := describe.image_of(engine, record):
            return known.id.removeprefix("sha256:").startswith(wanted) or parse(image).name in known.names
        return record.image == image

    def earlier(record: Record, name: str) -> bool:
        return record.created < engine.find(name).created

    def later(record: Record, name: str) -> bool:
        return record.created > engine.find(name).created

    def published(record: Record, wanted: str) -> bool:
        port, _, protocol = wanted.partition("/")
        return any(str(p.published) == port and p.protocol == (protocol or "tcp") for p in record.ports)

    for text in filters["name"]:
        pattern(text)  # one that is none is told also where there is nothing to compare
    chosen = filters.chosen(records, {
        "id": lambda r, v: r.id.startswith(v),
        "name": lambda r, v: any(pattern(v).search(name) for name in (r.name, f"/{r.name}")),
        "label": lambda r, v: labelled(describe.labels(r), v),
        "status": lambda r, v: describe.state_word(r) == v,
        "exited": lambda r, v: not r.running and r.exit_code is not None and str(r.exit_code) == v,
        "ancestor": derived, "before": earlier, "since": later,
        "volume": lambda r, v: any(v in (m["Name"], m["Destination"]) for m in describe.mounts(engine, r)),
        "network": lambda r, v: any(v in (e.network, engine.networks.identity(e.network)) for e in r.endpoints),
        "health": lambda r, v: (r.health or "none") == v,
        "publish": published, "expose": lambda r, v: any(f"{p.target}/{p.protocol}" == v for p in r.container.ports),
        "is-task": lambda r, v: not truth(v), "isolation": lambda r, v: v == "default",
    })
    for key, keep in (("before", earlier), ("since", later)):
        if name := request.query.get(key):
            chosen = [r for r in chosen if keep(r, name)]
    if (limit := number(request, "limit", -1)) > 0:
        chosen = chosen[:limit]
    rows = [describe.summary(engine, r) for r in chosen]
    if flag(request, "size"):
        for row, record in zip(rows, chosen, strict=True):
            row |= await asyncio.to_thread(_sizes, engine, record)
    return web.json_response(rows)


def _sizes(engine: Engine, record: Record) -> dict[str, int]:
    """Bytes of what it wrote, and of that with its image."""
    image = describe.image_of(engine, record)
    written = used(engine.directory(record) / "upper")
    return {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}


@routes.post("/containers/create")
async def create(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    document, name = await body(request, shapes.Create), request.query.get("name", "").removeprefix("/")
    if name and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", name):
        raise BadRequestError(f"Invalid container name ({quoted(name)}): only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    auto_remove = bool((document.get("HostConfig") or {}).get("AutoRemove"))
    wish = translate.container(document)
    if (document.get("HostConfig") or {}).get("PublishAllPorts"):
        image = engine.images.find(wish.image).config.config
        wish = translate.all_published(wish, (*wish.expose, *((image and image.exposed_ports) or ())))
    record = await engine.create(wish, name=name, auto_remove=auto_remove)
    for mount in record.container.mounts:
        if mount.kind == "volume" and mount.source:
            engine.volumes.create(mount.source)  # as in Docker it is there from now on
    return web.json_response({"Id": record.id, "Warnings": record.notes}, status=201)


@routes.get("/containers/{name}/json")
async def inspect(request: web.Request) -> web.Response:
    engine, record = request.app[ENGINE], _record(request)
    document = describe.inspected(engine, record)
    if flag(request, "size"):
        document |= await asyncio.to_thread(_sizes, engine, record)
    return web.json_response(document)


@routes.post("/containers/{name}/start")
async def start(request: web.Request) -> web.Response:
    await request.app[ENGINE].start(_record(request))
    return web.Response(status=204)


@routes.post("/containers/{name}/stop")
async def stop(request: web.Request) -> web.Response:
    number = signal_number(request.query["signal"]) if request.query.get("signal") else 0
    await request.app[ENGINE].stop(_record(request), grace_s=seconds(request, "t"), number=number)
    return web.Response(status=204)


@routes.post("/containers/{name}/restart")
async def restart(request: web.Request) -> web.Response:
    await request.app[ENGINE].restart(_record(request), grace_s=seconds(request, "t"))
    return web.Response(status=204)


@routes.post("/containers/{name}/kill")
async def kill(request: web.Request) -> web.Response:
    await request.app[ENGINE].kill(_record(request), signal_number(request.query.get("signal") or "SIGKILL"))
    return web.Response(status=204)


@routes.post("/containers/{name}/pause")
async def pause(request: web.Request) -> web.Response:
    await request.app[ENGINE].pause(_record(request))
    return web.Response(status=204)


@routes.post("/containers/{name}/unpause")
async def unpause(request: web.Request) -> web.Response:
    await request.app[ENGINE].resume(_record(request))
    return web.Response(status=204)


@routes.post("/containers/{name}/wait")
async def wait(request: web.Request) -> web.StreamResponse:
    """The head goes out at once, so that a client can start the container after it began to wait."""
    engine, record = request.app[ENGINE], _record(request)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if request.query.get("condition") in ("next-exit", "removed"):
        while record.state in ("created",):
            await engine.stirred(record)
    code = await engine.wait(record)
    if request.query.get("condition") == "removed" and record.auto_remove and record.id in engine.records:
        await engine.stirred(record)
    await response.write(json.dumps({"StatusCode": code}).encode())
    return response


@routes.delete("/containers/{name}")
async def remove(request: web.Request) -> web.Response:
    await request.app[ENGINE].remove(_record(request), force=flag(request, "force"), volumes=flag(request, "v"))
    return web.Response(status=204)


@routes.get("/containers/{name}/logs")
async def read_logs(request: web.Request) -> web.StreamResponse:
    engine, record = request.app[ENGINE], _record(request)
    if record.container.log_driver == "none":
        raise BadRequestError(f"container {record.name} keeps no log: its logging driver is none")
    tail = request.query.get("tail", "all")
    wanted = {n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)} or {1, 2}
    stamps, marks = flag(request, "timestamps"), flag(request, "marks")
    raw = record.container.tty and not marks
    kind = "raw" if raw else "multiplexed"
    since, until = (request.query[name] if moment(request, name) else "" for name in ("since", "until"))
    response = web.StreamResponse(headers={"Content-Type": f"application/vnd.docker.{kind}-stream"})
    await response.prepare(request)
    lines = logs.read(
        engine.directory(record) / "log", follow=flag(request, "follow"),
        tail=int(tail) if re.fullmatch(r"[0-9]{1,9}", tail) else None, since=since, until=until,
        ended=lambda: record.state in ("exited", "failed", "created") or record.id not in engine.records,
    )
    pending = b""
    async for line in lines:
        if line is logs.IDLE:
            pending += frame(0, b"") if marks else b""  # Docker has no frame of that kind: ours say where the past ends
            marks = False
        elif line.stream in wanted:
            text = (f"{line.time} ".encode() if stamps else b"") + line.text
            pending += text if raw else frame(line.stream, text)
        if pending and (line is logs.IDLE or len(pending) > 1 << 14):
            await response.write(pending)
            pending = b""
    if pending:
        await response.write(pending)
    return response


@routes.post("/containers/prune")
async def prune(request: web.Request) -> web.Response:
    """Delete containers that do not run, but for tasks of stacks."""
    engine = request.app[ENGINE]
    idle = [r for r in engine.records.values()
            if not r.task and not r.running and r.state not in ("starting", "restarting")]
    gone = []
    for record in Filters(request).chosen(idle, {
        "label": lambda r, v: labelled(describe.labels(r), v), "label!": lambda r, v: not labelled(describe.labels(r), v),
        "until": lambda r, v: logs.instant(r.created) < stamp(v),
    }):
        await engine.remove(record)
        gone.append(record.id)
    return web.json_response({"ContainersDeleted": gone, "SpaceReclaimed": 0})
