"""Engine API: containers. Source: Docker Engine API v1.43, section Container."""

from __future__ import annotations

import json

from aiohttp import web

from agent.api import translate
from agent.api.hijack import frame
from agent.api.keys import ENGINE, body, flag
from agent.containers import logs
from agent.engine.engine import Engine, signal_number
from agent.engine.records import Record
from agent.errors import AgentError, BadRequest
from agent.images.store import Image

routes = web.RouteTableDef()


def _record(request: web.Request) -> Record:
    return request.app[ENGINE].find(request.match_info["name"])


def _image(engine: Engine, record: Record) -> Image | None:
    try:
        return engine.images.image(record.image_id)
    except AgentError:
        return None


@routes.get("/containers/json")
async def listing(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    filters = json.loads(request.query.get("filters") or "{}")
    everything = flag(request, "all")
    out = []
    for record in sorted(engine.records.values(), key=lambda r: r.created, reverse=True):
        labels = translate.labels(record)
        wanted = filters.get("label", [])
        pairs = [w.partition("=") for w in (wanted if isinstance(wanted, list) else list(wanted))]
        if any(labels.get(k) is None or (eq and labels[k] != v) for k, eq, v in pairs):
            continue
        if filters.get("name") and not any(n.strip("^/$") in record.name for n in filters["name"]):
            continue
        if filters.get("status"):
            if translate.state_word(record) not in filters["status"]:
                continue
        elif not everything and not record.running:
            continue
        out.append(translate.summary(record, _image(engine, record)))
    return web.json_response(out)


@routes.post("/containers/create")
async def create(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    document = await body(request)
    auto_remove = bool((document.get("HostConfig") or {}).get("AutoRemove"))
    record = await engine.create(
        translate.container(document), name=request.query.get("name", ""), auto_remove=auto_remove
    )
    return web.json_response({"Id": record.id, "Warnings": record.notes}, status=201)


@routes.get("/containers/{name}/json")
async def inspect(request: web.Request) -> web.Response:
    record = _record(request)
    return web.json_response(translate.inspected(record, _image(request.app[ENGINE], record)))


@routes.post("/containers/{name}/start")
async def start(request: web.Request) -> web.Response:
    await request.app[ENGINE].start(_record(request))
    return web.Response(status=204)


def _grace(request: web.Request) -> float | None:
    return float(request.query["t"]) if request.query.get("t") else None


@routes.post("/containers/{name}/stop")
async def stop(request: web.Request) -> web.Response:
    number = signal_number(request.query["signal"]) if request.query.get("signal") else 0
    await request.app[ENGINE].stop(_record(request), grace_s=_grace(request), number=number)
    return web.Response(status=204)


@routes.post("/containers/{name}/restart")
async def restart(request: web.Request) -> web.Response:
    await request.app[ENGINE].restart(_record(request), grace_s=_grace(request))
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
        raise BadRequest(f"container {record.name} keeps no log: its logging driver is none")
    tail = request.query.get("tail", "all")
    wanted = {n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)} or {1, 2}
    stamps, raw = flag(request, "timestamps"), record.container.tty
    kind = "raw" if raw else "multiplexed"
    since, until = _since(request, "since"), _since(request, "until")
    response = web.StreamResponse(headers={"Content-Type": f"application/vnd.docker.{kind}-stream"})
    await response.prepare(request)
    lines = logs.read(
        engine.directory(record) / "log", follow=flag(request, "follow"),
        tail=int(tail) if tail.isdigit() else None, since=since, until=until,
        ended=lambda: record.state in ("exited", "failed", "created") or record.id not in engine.records,
    )
    pending = b""
    async for line in lines:
        if line.stream in wanted:
            text = (f"{line.time} ".encode() if stamps else b"") + line.text
            pending += text if raw else frame(line.stream, text)
            if len(pending) > 1 << 14 or flag(request, "follow"):
                await response.write(pending)
                pending = b""
    if pending:
        await response.write(pending)
    return response


def _since(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if value in ("", "0"):
        return ""
    try:
        logs.instant(value)
    except ValueError:
        raise BadRequest(f"{name}={value}: an RFC 3339 time, or seconds since the epoch") from None
    return value


@routes.post("/containers/prune")
async def prune(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    gone = []
    for record in list(engine.records.values()):
        if not record.task and not record.running and record.state not in ("starting", "restarting"):
            await engine.remove(record)
            gone.append(record.id)
    return web.json_response({"ContainersDeleted": gone, "SpaceReclaimed": 0})
