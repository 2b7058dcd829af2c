"""Engine API: images. Source: Docker Engine API v1.43, section Image."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.api.filters import Filters, labelled, stamp, truth
from agent.api.keys import ENGINE, decoded, flag
from agent.errors import AgentError, BadRequestError, told
from agent.files import used
from agent.images import archive, garbage, pull
from agent.images.reference import parse
from agent.images.store import Image, layer_directory
from agent.images.types import RunConfig
from agent.trees.extract import quoted

routes = web.RouteTableDef()


def summary(image: Image) -> dict[str, Any]:
    config = image.config.config or RunConfig()
    return {
        "Id": image.id, "RepoTags": [parse(n).familiar for n in image.names if "@" not in n],
        "RepoDigests": sorted({f"{parse(n).familiar.rsplit(':', 1)[0]}@{image.digest}" for n in image.names}),
        "ParentId": "", "Created": _epoch(image.created), "Size": image.size, "VirtualSize": image.size,
        "SharedSize": -1, "Containers": -1, "Labels": config.labels or {},
    }


def _epoch(stamp: str) -> int:
    from agent.containers.logs import instant

    try:
        return int(instant(stamp)) if stamp else 0
    except (ValueError, OverflowError):  # a date of no calendar, or "inf"
        return 0


def inspected(image: Image) -> dict[str, Any]:
    c = image.config.config or RunConfig()
    return summary(image) | {
        "Parent": "", "Comment": "", "Author": image.config.author or "", "DockerVersion": "", "OsVersion": "",
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Created": image.created, "Architecture": image.config.architecture, "Os": image.config.os,
        "Config": {
            "User": c.user, "Env": list(c.env or ()), "Entrypoint": list(c.entrypoint) if c.entrypoint else None,
            "Cmd": list(c.cmd) if c.cmd else None, "WorkingDir": c.working_dir, "Labels": c.labels or {},
            "Volumes": c.volumes, "ExposedPorts": c.exposed_ports, "StopSignal": c.stop_signal,
        },
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "GraphDriver": {"Name": "overlay2", "Data": {}}, "Descriptor": {"digest": image.digest},
    }


@routes.get("/images/json")
async def listing(request: web.Request) -> web.Response:
    store = request.app[ENGINE].images
    filters = Filters(request)

    def created(name: str) -> str:
        return store.find(name).created

    def refers(image: Image, pattern: str) -> bool:
        names = [parse(n).familiar for n in image.names]
        return any(fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n.rpartition(":")[0], pattern) for n in names)

    images = filters.chosen(store.everything(), {
        "reference": refers, "dangling": lambda i, v: (not i.names) == truth(v),
        "label": lambda i, v: labelled((i.config.config or RunConfig()).labels or {}, v),
        "before": lambda i, v: i.created < created(v), "since": lambda i, v: i.created > created(v),
        "until": lambda i, v: _epoch(i.created) < stamp(v),
    })
    if name := request.query.get("filter"):  # of clients before 1.41
        images = [i for i in images if refers(i, name)]
    return web.json_response([summary(i) for i in images])


@routes.get("/images/{name:.+}/history")
async def history(request: web.Request) -> web.Response:
    """The steps that made it, the newest first; each that made a layer with what the layer has, in bytes."""
    store = request.app[ENGINE].images
    image = store.find(request.match_info["name"])
    sizes = iter(image.layers)
    steps = []
    for step in image.config.history or ():
        layer = None if step.empty_layer else next(sizes, None)
        size = await asyncio.to_thread(used, layer_directory(store.layers, layer)) if layer else 0
        steps.append({"Id": "<missing>", "Created": _epoch(step.created or ""), "CreatedBy": step.created_by or "",
                      "Comment": step.comment or "", "Size": size, "Tags": None})
    steps.reverse()
    if steps:
        steps[0] |= {"Id": image.id, "Tags": summary(image)["RepoTags"]}
    return web.json_response(steps)


@routes.get("/images/{name:.+}/get")
async def save_one(request: web.Request) -> web.StreamResponse:
    store, name = request.app[ENGINE].images, request.match_info["name"]
    store.find(name)
    return await _send(request, archive.save(store, [name]))


@routes.get("/images/{name:.+}/json")
async def inspect(request: web.Request) -> web.Response:
    return web.json_response(inspected(request.app[ENGINE].images.find(request.match_info["name"])))


class Stream:
    """An answer of one JSON object a line while work goes on; an error after the head is its last line."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._queue: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    def tell(self, event: dict[str, object]) -> None:
        self._queue.put_nowait(event)

    async def run(self, work: Any) -> web.StreamResponse:
        await self.response.prepare(self.request)
        task = asyncio.ensure_future(work)
        getter: asyncio.Future[dict[str, object]] | None = None
        try:
            while True:
                getter = asyncio.ensure_future(self._queue.get())
                await asyncio.wait({task, getter}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    await self._line(getter.result())
                if task.done() and self._queue.empty():
                    getter.cancel()
                    break
            try:
                result = task.result()
                if isinstance(result, dict):
                    await self._line(result)
            except (AgentError, OSError) as error:
                await self._line({"error": told(error), "errorDetail": {"message": told(error)}})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # whoever asked may be gone before it failed
            if getter and not getter.done():
                getter.cancel()
        return self.response

    async def _line(self, event: dict[str, object]) -> None:
        await self.response.write(json.dumps(event).encode() + b"\n")


@routes.post("/images/create")
async def create(request: web.Request) -> web.StreamResponse:
    """Pull (`fromImage`), or import the request's body (`fromSrc=-`)."""
    engine = request.app[ENGINE]
    stream = Stream(request)
    if request.query.get("fromSrc"):
        if request.query["fromSrc"] != "-":
            raise BadRequestError("images are imported from the request's body alone: fromSrc=-")
        name = request.query.get("repo", "") + (f":{request.query['tag']}" if request.query.get("tag") else "")

        async def take() -> dict[str, object]:
            image = await archive.import_rootfs(
                engine.images, request.content.iter_any(), parse(name), changes(request.query.getall("changes", []))
            )
            return {"status": image.id}

        return await stream.run(take())
    name = request.query.get("fromImage", "")
    tag = request.query.get("tag", "")
    if tag:
        name += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
    parse(name)
    stream.tell({"status": f"Pulling {parse(name).familiar}"})

    async def fetch() -> dict[str, object]:
        image = await engine.pull(name, stream.tell)
        return {"status": f"Status: Image is up to date for {parse(name).familiar}", "aux": {"ID": image.id}}

    return await stream.run(fetch())


def changes(lines: list[str]) -> RunConfig:
    """Dockerfile instructions that set the image's config: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL."""
    fields: dict[str, Any] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        word = word.upper()
        if word in ("CMD", "ENTRYPOINT"):
            fields[word.lower()] = decoded(rest.encode(), tuple[str, ...]) if rest.startswith("[") else ("/bin/sh", "-c", rest)
        elif word == "ENV":
            fields["env"] = (*fields.get("env", ()), rest)
        elif word == "LABEL":
            key, _, value = rest.partition("=")
            fields.setdefault("labels", {})[key] = value
        elif word in ("USER", "WORKDIR"):
            fields[{"USER": "user", "WORKDIR": "working_dir"}[word]] = rest
        else:
            raise BadRequestError(f"change {quoted(line)!r}: CMD, ENTRYPOINT, ENV, USER, WORKDIR and LABEL are known")
    return RunConfig(**fields)


@routes.post("/images/load")
async def load(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    stream = Stream(request)

    async def take() -> dict[str, object]:
        with tempfile.NamedTemporaryFile(dir=engine.paths.root, prefix="load-", suffix=".tar") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
            file.flush()
            names = await archive.load(engine.images, Path(file.name))
        for name in names:
            stream.tell({"stream": f"Loaded image: {name}\n"})
        return {"status": "loaded", "names": names}

    return await stream.run(take())


@routes.get("/images/get")
async def save(request: web.Request) -> web.StreamResponse:
    store = request.app[ENGINE].images
    names = [n for value in request.query.getall("names", []) for n in value.split(",")]
    for name in names:
        store.find(name)
    return await _send(request, archive.save(store, names))


async def _send(request: web.Request, source: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)
    async for chunk in source:
        await response.write(chunk)
    return response


@routes.post("/images/{name:.+}/push")
async def push(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    name = request.match_info["name"] + (f":{request.query['tag']}" if request.query.get("tag") else "")
    image = engine.images.find(name)
    stream = Stream(request)
    return await stream.run(pull.push(engine.images, image, parse(name), engine.settings, stream.tell))


@routes.post("/images/{name:.+}/tag")
async def tag(request: web.Request) -> web.Response:
    store = request.app[ENGINE].images
    image = store.find(request.match_info["name"])
    if not request.query.get("repo"):
        raise BadRequestError("repo is missing: what shall the image be called?")
    store.tag(parse(f"{request.query['repo']}:{request.query.get('tag') or 'latest'}"), image.digest)
    return web.Response(status=201)


@routes.delete("/images/{name:.+}")
async def remove(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    in_use = set() if flag(request, "force") else engine.images_in_use()
    return web.json_response(engine.images.remove(request.match_info["name"], in_use=in_use))


@routes.post("/images/prune")
async def prune(request: web.Request) -> web.Response:
    """Delete images without a name; with filters dangling=false every image that no container uses; with until=SECONDS those
    alone that were last used before."""
    engine = request.app[ENGINE]
    filters = Filters(request)
    everything = next(iter(filters["dangling"]), "true").lower() in ("false", "0")
    gone: list[dict[str, str]] = []
    until = stamp(next(iter(filters["until"]), "inf"))
    for image in garbage.unused(engine.images):
        if (everything or not image.names) and engine.images.last_used(image.digest) <= until:
            gone += engine.images.remove(image.id, in_use=set())
    return web.json_response({"ImagesDeleted": gone, "SpaceReclaimed": engine.images.collect()})
