"""Engine API: images. Source: Docker Engine API v1.48, section Image."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from agent.api import describe, login
from agent.api.app_keys import ENGINE, answer, flag, minor, number
from agent.api.filters import NOT_DANGLING, Filters, labelled, moment_of, path_matches, truth
from agent.api.instructions import changes
from agent.api.transfers import PullLines, push_lines
from agent.containers.logs import instant
from agent.engine.engine import Engine
from agent.engine.pulls import announce
from agent.errors import (
    AgentError,
    BadRequestError,
    ConflictError,
    DeniedError,
    ImageError,
    ImageNotFoundError,
    UnauthorizedError,
    user_message,
)
from agent.images import archive, documents, garbage, pull, types
from agent.images.credentials import Credentials
from agent.images.platforms import platform_of, read
from agent.images.reference import parse
from agent.images.registry import Registry
from agent.images.store import Image
from agent.images.types import RunConfig

SEARCH, SEARCH_S = "https://index.docker.io/v1/search", 15
UNNAMED_IN_ARCHIVE = re.compile(r"sha256:[0-9a-f]{64}")
OF_A_CONTAINER = (
    "Hostname",
    "Domainname",
    "Image",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
)
"""Fields of an image's configuration that it has of the container that it was made of."""
NEVER = "0001-01-01T00:00:00Z"


def summary_names(image: Image) -> dict[str, Any]:
    """Its tags, and its digests with the repositories that have them."""
    tags = [parse(n).familiar for n in image.names if "@" not in n]
    digests = sorted({f"{parse(n).familiar.rpartition(':')[0].partition('@')[0]}@{image.digest}" for n in image.names})
    return {"RepoTags": tags, "RepoDigests": digests}


def summary(image: Image, size: int = 0, version: int = 48) -> dict[str, Any]:
    """An image of a list, as API version 1.*version* has it; *size* is in bytes, of its layers unpacked."""
    config = image.config.config or RunConfig()
    names = summary_names(image)
    tags, digests = names["RepoTags"], names["RepoDigests"]
    if version < 43:
        tags, digests = tags or ["<none>:<none>"], digests or ["<none>@<none>"]
    return {
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "ParentId": "",
        "Created": epoch(image.created),
        "Size": size,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": config.labels,
        **({"VirtualSize": size} if version < 44 else {}),
    }


ZERO_TIME = -62_135_596_800
"""Seconds since 1970 of the first of January of the year 1, by which Docker's clients know that there is no time."""


def epoch(stamp: str) -> int:
    """Seconds since 1970 of an RFC 3339 *stamp*; those of Go's zero time if it cannot be read."""
    try:
        return int(instant(stamp)) if stamp else ZERO_TIME
    except (ValueError, OverflowError):  # a date of no calendar, or "inf"
        return ZERO_TIME


def run_config(c: RunConfig) -> dict[str, Any]:
    """The configuration of containers of an image."""
    health = c.healthcheck and {k: v for k, v in msgspec.to_builtins(c.healthcheck).items() if v}
    return {
        "Hostname": "",
        "Domainname": "",
        "User": c.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None if c.env is None else list(c.env),
        "Image": "",
        "Entrypoint": c.entrypoint or None,
        "Cmd": c.cmd or None,
        "WorkingDir": c.working_dir,
        "Labels": c.labels,
        "Volumes": c.volumes,
        "OnBuild": c.on_build,
        **{
            k: v
            for k, v in (
                ("ExposedPorts", c.exposed_ports),
                ("StopSignal", c.stop_signal),
                ("Healthcheck", health),
                ("Shell", c.shell),
            )
            if v
        },
    }


def inspected(image: Image, size: int = 0, version: int = 48, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """An image by itself; *size* is as in `summary`, *folders* are where its layers lie, the uppermost first."""
    layers = {"UpperDir": str(folders[0]), "LowerDir": ":".join(map(str, folders[1:]))} if folders else {}
    steps = image.config.history or ()
    document = (
        summary(image, size, version)
        | summary_names(image)
        | {
            "Parent": "",
            "Comment": (steps[-1].comment or "") if steps else "",
            "Author": image.config.author or "",
            "DockerVersion": "",
            "Metadata": {"LastTagTime": NEVER},
            "Created": image.created or NEVER,
            "Architecture": image.config.architecture,
            "Os": image.config.os,
            "Config": run_config(image.config.config or RunConfig()),
            "RootFS": {"Type": "layers", "Layers": list(image.layers)},
            "GraphDriver": {"Name": "overlay2", "Data": layers},
            # Docker dropped these two in 1.45; docker-compose 1 reads them in every version
            "Container": "",
            "ContainerConfig": run_config(RunConfig()),
        }
    )
    for key in ("ParentId", "SharedSize", "Containers", "Labels"):
        del document[key]
    return document


async def listing(request: web.Request) -> web.Response:
    """List images (ImageList)."""
    engine = request.app[ENGINE]
    store, filters = engine.images, Filters(request)

    def created(name: str) -> str:
        return store.find(name).created

    def fits(name: str, pattern: str) -> bool:
        familiar = parse(name).familiar
        return path_matches(pattern, familiar) or path_matches(pattern, familiar.rpartition(":")[0])

    filters.check(dangling=lambda v: truth(v, NOT_DANGLING), until=moment_of, before=created, since=created)
    patterns = [*filters["reference"], *([name] if (name := request.query.get("filter")) else [])]
    images = filters.chosen(
        store.everything(),
        {
            "reference": lambda i, v: any(fits(n, v) for n in i.names),
            "dangling": lambda i, v: (not i.names) == truth(v, NOT_DANGLING),
            "label": lambda i, v: labelled((i.config.config or RunConfig()).labels or {}, v),
            "before": lambda i, v: i.created < created(v),
            "since": lambda i, v: i.created > created(v),
            "until": lambda i, v: epoch(i.created) < moment_of(v),
        },
    )
    if patterns:  # of an image only the names that were asked for
        narrowed = [
            msgspec.structs.replace(i, names=tuple(n for n in i.names if any(fits(n, p) for p in patterns))) for i in images
        ]
        images = [i for i in narrowed if i.names]
    await engine.sizes.learn(images)
    images.sort(key=lambda i: epoch(i.created), reverse=True)
    rows = [summary(i, engine.sizes.image(i), minor(request)) for i in images]
    if flag(request, "shared-size"):
        for row, image in zip(rows, images, strict=True):
            row["SharedSize"] = shared(engine, image)
    return answer(rows)


def shared(engine: Engine, image: Image) -> int:
    """Bytes of its layers that other images have too."""
    others = {d for i in engine.images.everything() if i.digest != image.digest for d in i.layers}
    return sum(engine.sizes.layer(d) for d in image.layers if d in others)


async def history(request: web.Request) -> web.Response:
    """The steps that made an image (ImageHistory), the newest first, with the bytes of their layers."""
    engine = request.app[ENGINE]
    image = engine.images.find(request.match_info["name"])
    await engine.sizes.learn([image])
    layers = iter(image.layers)
    steps = []
    for step in image.config.history or ():
        layer = None if step.empty_layer else next(layers, None)
        steps.append(
            {
                "Id": "<missing>",
                "Created": epoch(step.created or ""),
                "CreatedBy": step.created_by or "",
                "Comment": step.comment or "",
                "Size": engine.sizes.layer(layer) if layer else 0,
                "Tags": None,
            }
        )
    steps.reverse()
    if steps:
        steps[0] |= {"Id": image.id, "Tags": summary(image)["RepoTags"] or None}
    return answer(steps)


async def inspect(request: web.Request) -> web.Response:
    """Describe an image (ImageInspect)."""
    engine = request.app[ENGINE]
    image = engine.images.find(request.match_info["name"])
    await engine.sizes.learn([image])
    document = inspected(image, engine.sizes.image(image), minor(request), engine.images.lower(image))
    size = engine.images.blob(image.digest).stat().st_size
    document["Descriptor"] = {"mediaType": types.OCI_MANIFEST, "digest": image.digest, "size": size}
    if made_of := engine.committed.get(image.id):
        document["Container"] = made_of.id
        document["ContainerConfig"] = describe.config(made_of, engine.images.image(made_of.image_id))
        document["Config"] |= {k: document["ContainerConfig"][k] for k in OF_A_CONTAINER}
        with contextlib.suppress(ImageError):  # it may have gone
            document["Parent"] = engine.images.image(made_of.image_id).id
    return answer(document)


async def distribution(request: web.Request) -> web.Response:
    """Describe an image of a registry without pulling it (DistributionInspect)."""
    reference = parse(request.match_info["name"])
    settings = request.app[ENGINE].settings
    what, limits = reference.familiar, settings.limits
    async with Registry(reference, settings, login.sent(request)) as registry:
        try:
            data, digest, kind = await registry.manifest(reference.target)
        except DeniedError as error:
            raise UnauthorizedError(str(error)) from None
        if kind in types.INDEXES:
            entries = documents.index(data, f"the index of image {what}", limits).manifests
            platforms = [msgspec.to_builtins(e.platform) for e in entries if e.platform]
        else:
            manifest = documents.manifest(data, f"the manifest of image {what}", limits)
            raw = b"".join([c async for c in registry.blob(manifest.config.digest, manifest.config.size)])
            found = documents.config(raw, f"the config of image {what}", limits, layers=len(manifest.layers))
            platforms = [{"architecture": found.architecture, "os": found.os}]
    platforms = [{k: v for k, v in p.items() if v} for p in platforms]
    return answer({"Descriptor": {"mediaType": kind, "digest": digest, "size": len(data)}, "Platforms": platforms})


async def search(request: web.Request) -> web.Response:
    """Search Docker Hub for *term* (ImageSearch); no other registry is asked."""
    term, limit = request.query.get("term", ""), number(request, "limit", 25)
    if not term:
        raise BadRequestError("term is missing: give what to search for")
    if not 0 < limit <= 100:
        raise BadRequestError(f"Limit {limit} is outside the range of [1, 100]")
    timeout = aiohttp.ClientTimeout(total=SEARCH_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(SEARCH, params={"q": term, "n": limit}) as reply,
        ):
            found = (await reply.json(content_type=None)).get("results") or []
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ImageError(f"Docker Hub cannot be searched: {error or type(error).__name__}") from error
    return answer(
        Filters(request).chosen(
            found,
            {
                "is-official": lambda r, v: bool(r.get("is_official")) == truth(v),
                "is-automated": lambda r, v: bool(r.get("is_automated")) == truth(v),
                "stars": lambda r, v: int(r.get("star_count", 0)) >= int(v),
            },
        )
    )


class ProgressStream:
    """An answer of one JSON object a line while work goes on. An error before the first line is an HTTP error, but for
    *always* 200, and one after it the last line."""

    def __init__(self, request: web.Request, *, always: bool = False) -> None:
        self.request = request
        self._always = always
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._queue: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    def tell(self, event: dict[str, object]) -> None:
        """Queue *event* to go out as a line of JSON."""
        self._queue.put_nowait(event)

    async def run(self, work: Coroutine[Any, Any, object]) -> web.StreamResponse:
        """Do *work* and send its events. Raises the error of *work* if nothing has gone out yet, else sends it as a line."""
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
                task.result()
            except (AgentError, OSError) as error:
                if not self.response.prepared and not self._always:
                    raise
                code = {"code": error.code} if isinstance(error, AgentError) and error.code else {}
                await self._line({"errorDetail": {**code, "message": user_message(error)}, "error": user_message(error)})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # the client may go before the work fails
            if getter and not getter.done():
                getter.cancel()
        if not self.response.prepared:
            await self.response.prepare(self.request)
        return self.response

    async def _line(self, event: dict[str, object]) -> None:
        if not self.response.prepared:
            await self.response.prepare(self.request)
        await self.response.write(json.dumps(event).encode() + b"\r\n")


async def create(request: web.Request) -> web.StreamResponse:
    """Pull (`fromImage`), or import the request's body (`fromSrc=-`) or the content of a URL."""
    stream = ProgressStream(request)
    if source := request.query.get("fromSrc"):
        if text := request.query.get("platform", ""):
            read(text)
        return await stream.run(_imported(request, source, stream))
    name, tag = request.query.get("fromImage", ""), request.query.get("tag", "")
    if not name:
        raise BadRequestError("fromImage is missing: give the image to pull")
    platform_of(request.query.get("platform", ""))
    if tag:
        name += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
    return await stream.run(_fetched(request.app[ENGINE], name, stream, login.sent_for(request, parse(name).host)))


def suits(image: Image, name: str, platform: str) -> None:
    """Raises ImageNotFoundError if *image* is not for *platform*, BadRequestError if there is no such platform."""
    if not platform:
        return
    found = f"{image.config.os}/{image.config.architecture}"
    try:
        platform_of(platform)
    except (BadRequestError, ImageNotFoundError):
        raise ImageNotFoundError(
            f"image with reference {name} was found but does not match the specified platform: wanted "
            f"{platform}, actual: {found}"
        ) from None


async def _fetched(engine: Engine, name: str, stream: ProgressStream, credentials: Credentials | None) -> None:
    reference = parse(name)
    whole = "@" in name or ":" in name.rpartition("/")[2]
    if whole:
        tags = [reference.tag]
    else:  # without a tag, all of them
        async with Registry(reference, engine.settings, credentials) as registry:
            tags = await registry.tags()
    news = False
    for tag in tags:
        one = msgspec.structs.replace(reference, tag=tag) if tag else reference
        text = one.familiar if not one.digest else f"{one.familiar.partition('@')[0]}@{one.digest}"
        try:
            before = engine.images.find(text).digest
        except AgentError:
            before = ""
        lines = PullLines(stream.tell, {"status": f"Pulling from {one.repository}", "id": one.tag or text}, before)
        held = engine.images.names.get(one.name, "")
        image = await engine.pulls.pull(text, lines.step, credentials)
        displaced(engine, held)
        news = news or image.digest != before
    word = "Downloaded newer image for" if news else "Image is up to date for"
    stream.tell({"status": f"Status: {word} {text if whole else reference.familiar.rpartition(':')[0]}"})


async def _imported(request: web.Request, source: str, stream: ProgressStream) -> None:
    engine, query = request.app[ENGINE], request.query
    given = changes(query.getall("changes", []))
    repo, tag = query.get("repo", ""), query.get("tag", "")
    reference = parse(f"{repo}:{tag}" if tag else repo) if repo else None
    before = engine.images.names.get(reference.name, "") if reference else ""
    if source == "-":
        comment = query.get("message", "") or "Imported from -"
        image = await archive.import_rootfs(engine.images, request.content.iter_any(), reference or UNNAMED, given, comment)
    else:
        image = await _downloaded(engine, source, reference, given, stream, query.get("message", ""))
    if reference is None:
        engine.images.keep_untagged(image.digest)
        engine.images.untag(UNNAMED.name)
    displaced(engine, before)
    event(engine, "import", image, reference.familiar if reference else image.id)
    stream.tell({"status": image.id})


def displaced(engine: Engine, digest: str) -> None:
    """Keep the image *digest* ("" for none) that lost a name to another, untagged if it has no other name."""
    if digest and digest not in engine.images.names.values():
        engine.images.keep_untagged(digest)


UNNAMED = parse("pystack-import:unnamed")
"""The temporary name of an image without a name, while it is made."""


async def _downloaded(
    engine: Engine, source: str, reference: Any, given: RunConfig, stream: ProgressStream, message: str
) -> Image:
    url = source if "://" in source else f"http://{source}"
    if not url.startswith(("http://", "https://")):
        raise BadRequestError(f"fromSrc={source}: an image is imported from the request's body (-) or an http URL")
    try:
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as reply:
            if reply.status != 200:
                raise ImageError(f"{url} answered {reply.status}")
            stream.tell({"status": f"Downloading from {url}"})
            comment = message or f"Imported from {url}"
            return await archive.import_rootfs(engine.images, reply.content.iter_any(), reference or UNNAMED, given, comment)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ImageError(f"{url}: {error or type(error).__name__}") from error


def report_removed(engine: Engine, image: Image, gone: list[dict[str, str]]) -> None:
    """Emit the events of names removed from *image*, and of the image itself."""
    for row in gone:
        event(engine, "untag" if "Untagged" in row else "delete", image, image.id)
        if "Deleted" in row:
            engine.committed.pop(image.id, None)


def event(engine: Engine, action: str, image: Image, name: str) -> None:
    """Emit the event *action* of *image* under *name*."""
    labels = (image.config.config or RunConfig()).labels or {}
    engine.events.emit("image", action, image.id, {**labels, "name": name})


async def load(request: web.Request) -> web.StreamResponse:
    """Take in the images of a tar archive (ImageLoad)."""
    engine = request.app[ENGINE]
    platform_of(request.query.get("platform", ""))
    stream = ProgressStream(request, always=True)  # clients look for the error of a damaged archive among the lines

    async def take() -> None:
        with tempfile.NamedTemporaryFile(dir=engine.paths.root, prefix="load-", suffix=".tar") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
            file.flush()
            names = await archive.load(engine.images, Path(file.name))
        for name in names:
            image = engine.images.find(name)
            if UNNAMED_IN_ARCHIVE.fullmatch(name):  # saved by its ID, it comes without a name
                engine.images.keep_untagged(image.digest)
                if parse(name).name in engine.images.names:  # as earlier versions wrote it down
                    engine.images.untag(parse(name).name)
            event(engine, "load", image, name)
            shown_as = f" ID: {image.id}" if name.startswith("sha256:") else f": {name}"
            stream.tell({"stream": f"Loaded image{shown_as}\n"})

    return await stream.run(take())


async def save_one(request: web.Request) -> web.StreamResponse:
    """Stream one image as a tar archive (ImageGet)."""
    return await _saved(request, [request.match_info["name"]])


async def save(request: web.Request) -> web.StreamResponse:
    """Stream several images as a tar archive (ImageGetAll)."""
    names = [n for value in request.query.getall("names", []) for n in value.split(",")]
    if not names:
        raise BadRequestError("names is missing: give the images to save")
    return await _saved(request, names)


async def _saved(request: web.Request, names: list[str]) -> web.StreamResponse:
    engine = request.app[ENGINE]
    platform_of(request.query.get("platform", ""))
    exact = []
    for name in names:
        try:
            image = engine.images.find(name)
        except ImageNotFoundError:
            raise ImageNotFoundError(f"No such image: {name}") from None
        # an image requested by its ID has no name in the archive
        exact.append(image.id if named_by_id(image, name) else name)
        event(engine, "save", image, name)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)
    source: AsyncIterator[bytes] = archive.save(engine.images, exact)
    async for chunk in source:
        await response.write(chunk)
    return response


def named_by_id(image: Image, text: str) -> bool:
    """Whether *text*, by which *image* was found, is the beginning of its ID rather than a name."""
    bare = text.removeprefix("sha256:")
    if text == image.digest or not image.id[7:].startswith(bare):
        return False
    return text != bare or len(bare) == 64 or f"docker.io/library/{bare}:latest" not in image.names


async def push(request: web.Request) -> web.StreamResponse:
    """Push one tag, or without one all tags that this node has of the name (ImagePush)."""
    engine, tag = request.app[ENGINE], request.query.get("tag", "")
    platform_of(request.query.get("platform", ""))
    reference = parse(request.match_info["name"] + (f":{tag}" if tag else ""))
    credentials = login.sent_for(request, reference.host)
    if reference.digest:
        raise BadRequestError("an image is pushed by a tag, not by a digest")
    whole = not tag and ":" not in request.match_info["name"].rpartition("/")[2]
    prefix = f"{reference.host}/{reference.repository}:"
    tagged = sorted(n for n in engine.images.names if n.startswith(prefix))
    names = tagged if whole else [reference.name]
    stream = ProgressStream(request)

    async def send() -> None:
        # from now on an error goes into the answer's last line, as clients expect of a push
        stream.tell({"status": f"The push refers to repository [{reference.host}/{reference.repository}]"})
        if not tagged:
            raise ImageNotFoundError(f"An image does not exist locally with the tag: {reference.familiar.rpartition(':')[0]}")
        if names[0] not in engine.images.names:
            raise ImageNotFoundError(f"tag does not exist: {reference.familiar}")
        for name in names:
            one, image = parse(name), engine.images.find(name)
            await pull.push(engine.images, image, one, engine.settings, push_lines(stream.tell), credentials)
            size = engine.images.blob(image.digest).stat().st_size
            stream.tell({"progressDetail": {}, "aux": {"Tag": one.tag, "Digest": image.digest, "Size": size}})
            announce(engine.events, "push", image, one)

    return await stream.run(send())


async def tag(request: web.Request) -> web.Response:
    """Give an image a name (ImageTag)."""
    engine, repo, label = request.app[ENGINE], request.query.get("repo", ""), request.query.get("tag", "")
    image = engine.images.find(request.match_info["name"])
    if not repo:
        raise BadRequestError("repo is missing: give the image's new name")
    reference = parse(f"{repo}:{label}" if label else repo)
    if reference.digest:
        raise BadRequestError("a tag is a name, not a digest")
    replaced = engine.images.names.get(reference.name, "")
    if replaced and replaced != image.digest and engine.images.image(replaced).names == (reference.name,):
        engine.images.keep_untagged(replaced)
    engine.images.tag(reference, image.digest)
    event(engine, "tag", image, reference.familiar)
    return web.Response(status=201)


async def remove(request: web.Request) -> web.Response:
    """Remove a name of an image, and with its last name the image (ImageDelete)."""
    engine, text, force = request.app[ENGINE], request.match_info["name"], flag(request, "force")
    image = engine.images.find(text)
    users = [r for r in engine.containers.records.values() if r.image_id == image.digest]
    running = next((r for r in users if r.running), None)
    by_id = named_by_id(image, text)
    if by_id and running:
        raise ConflictError(
            f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - image is being used by running container "
            f"{running.short}"
        )
    repositories = {n.rpartition(":")[0] for n in image.names}
    if by_id and len(repositories) > 1 and not force:
        raise ConflictError(
            f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
        )
    last = by_id or set(image.names) <= {parse(text).name}
    if last and users and not force:
        raise ConflictError(
            f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is being used by stopped container "
            f"{users[0].short}"
            if by_id
            else f'conflict: unable to remove repository reference "{text}" (must force) - container {users[0].short} is using '
            f"its referenced image {image.id[7:19]}"
        )
    if last and running:  # the container goes on, and so does its image, without a name
        engine.images.keep_untagged(image.digest)
        engine.images.untag(parse(text).name)
        gone = [{"Untagged": parse(text).familiar}]
    else:
        gone = engine.images.remove(image.id if by_id else text, in_use=engine.context.images_in_use() if not force else set())
    report_removed(engine, image, gone)
    return answer([*gone, *_layers_gone(engine, image)] if {"Deleted": image.id} in gone else gone)


def _layers_gone(engine: Engine, image: Image) -> list[dict[str, str]]:
    """Of the layers of *image*, which is deleted, those that no other image has, by their chain IDs. Source: OCI image
    specification, "Layer ChainID"."""

    def chains(diff_ids: Sequence[str]) -> list[str]:
        out = list(diff_ids[:1])
        for diff_id in diff_ids[1:]:
            out.append(f"sha256:{hashlib.sha256(f'{out[-1]} {diff_id}'.encode()).hexdigest()}")
        return out

    kept = {chain for other in engine.images.everything() for chain in chains(other.layers)}
    return [{"Deleted": chain} for chain in reversed(chains(image.layers)) if chain not in kept]


async def prune(request: web.Request) -> web.Response:
    """Delete images without a name; with filters dangling=false every image that no container uses; `until` limits that to
    those made before, `unused-until` to those that no container was made of since."""
    engine = request.app[ENGINE]
    filters = Filters(request)
    filters.check(dangling=lambda v: truth(v, NOT_DANGLING), until=moment_of)
    everything = filters["dangling"] and not truth(filters["dangling"][0])
    spare = [i for i in garbage.unused(engine.images) if everything or not i.names]
    gone: list[dict[str, str]] = []
    doomed = filters.chosen(
        spare,
        {
            "dangling": lambda i, v: True,
            "until": lambda i, v: epoch(i.created) < moment_of(v),
            "unused-until": lambda i, v: engine.images.last_used(i.digest) <= moment_of(v),
            "label": lambda i, v: labelled((i.config.config or RunConfig()).labels or {}, v),
            "label!": lambda i, v: not labelled((i.config.config or RunConfig()).labels or {}, v),
        },
    )
    for image in doomed:
        rows = engine.images.remove(image.id, in_use=set())
        report_removed(engine, image, rows)
        gone += rows
    freed = engine.images.collect()
    engine.events.emit("image", "prune", "", {"reclaimed": str(freed)})
    return answer({"ImagesDeleted": gone, "SpaceReclaimed": freed})
