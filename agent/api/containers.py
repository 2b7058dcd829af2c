"""Engine API: containers. Source: Docker Engine API v1.43, section Container."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

import msgspec
from aiohttp import web

from agent.api import checks, describe, execs, images, networks, translate, volumes
from agent.api.app_keys import ENGINE, answer, body, flag, minor, number, seconds
from agent.api.filters import Filters, labelled, moment, moment_of, one_of, pattern, truth, whole
from agent.api.hijack import MULTIPLEXED, RAW
from agent.containers import logs
from agent.contract.frames import frame
from agent.contract.printable import quoted
from agent.engine import creating, mount_sources, stopping
from agent.engine.engine import Engine
from agent.engine.networks.table import network_id
from agent.engine.records import Record
from agent.engine.stopping import signal_number
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError, NotImplementedHereError
from agent.files import used
from agent.images.reference import parse


def _record(request: web.Request) -> Record:
    """The container of the path: by name, ID, or as another one's link. Raises NotFoundError."""
    name, alias = request.match_info["name"], request.match_info.get("alias")
    return request.app[ENGINE].containers.find(f"{name}/{alias}" if alias else name)


STATES = one_of("Invalid filter 'status={}'", "created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = one_of("Unrecognised filter value for health: {}", "starting", "healthy", "unhealthy", "none")


async def listing(request: web.Request) -> web.Response:
    """List containers, the newest first (ContainerList)."""
    engine, filters = request.app[ENGINE], Filters(request)
    limit = number(request, "limit", -1)
    records = sorted(engine.containers.records.values(), key=lambda r: r.created, reverse=True)
    made = functools.partial(_made, engine)
    filters.check(
        name=pattern, status=STATES, health=HEALTH, exited=whole, before=made, since=made, publish=_span, expose=_span
    )
    # filters for a state, for exit codes or for the last ones include containers that do not run
    if not (
        flag(request, "all")
        or filters["status"]
        or filters["exited"]
        or limit > 0
        or any(filters[k] or request.query.get(k) for k in ("before", "since"))
    ):
        records = [r for r in records if r.running]
    chosen = filters.chosen(records, _tests(engine))
    for key in ("before", "since"):
        if name := request.query.get(key):
            at = engine.containers.find(name).created
            chosen = [r for r in chosen if (r.created < at if key == "before" else r.created > at)]
    if limit > 0:
        chosen = chosen[:limit]
    rows = [describe.summary(engine, r, minor(request)) for r in chosen]
    if flag(request, "size"):
        await engine.sizes.learn(i for r in chosen if (i := describe.image_of(engine, r)))
        for row, record in zip(rows, chosen, strict=True):
            row |= await asyncio.to_thread(describe.sizes, engine, record)
    return answer(rows)


def _made(engine: Engine, name: str) -> str:
    """When the container *name* was made. Raises NotFoundError."""
    try:
        return engine.containers.find(name).created
    except NotFoundError:
        raise NotFoundError(f"no such container {name}") from None


def _span(text: str) -> tuple[int, int, str]:
    """The first and the last port of a filter, and their protocol. Raises BadRequestError."""
    span, _, protocol = text.partition("/")
    first, _, last = span.partition("-")
    if not all(re.fullmatch(r"[0-9]{1,5}", number) for number in (first, last or first)):
        raise BadRequestError(f"invalid filter value {quoted(text)}: a port is written like 80, 80/udp or 8000-8010")
    return int(first), int(last or first), protocol or "tcp"


def _tests(engine: Engine) -> dict[str, Callable[[Record, str], bool]]:
    """The filters of a list of containers."""

    def derived(record: Record, image: str) -> bool:
        """Made of *image*, or of one that has all of its layers."""
        known = describe.image_of(engine, record)
        if known and known.id.removeprefix("sha256:").startswith(image.removeprefix("sha256:")):
            return True
        try:
            wanted = engine.images.find(image)
        except AgentError:
            return record.image == image
        return known is not None and known.layers[: len(wanted.layers)] == wanted.layers

    def named(record: Record, text: str) -> bool:
        found = pattern(text)
        return any(found.search(name) if found else text in name for name in (record.name, f"/{record.name}"))

    def ported(ports: Iterable[tuple[int, str]], wanted: str) -> bool:
        first, last, protocol = _span(wanted)
        return any(first <= port <= last and kind == protocol for port, kind in ports)

    def exposed(record: Record) -> list[tuple[int, str]]:
        names = [n.partition("/") for n in describe.exposed(engine, record)]
        return [(int(port), kind or "tcp") for port, _, kind in names if re.fullmatch(r"[0-9]{1,5}", port)]

    return {
        "id": lambda r, v: r.id.startswith(v),
        "name": named,
        "label": lambda r, v: labelled(describe.all_labels(engine, r), v),
        "status": lambda r, v: describe.state_word(r) == v,
        "exited": lambda r, v: not r.running and r.exit_code is not None and r.exit_code == whole(v),
        "ancestor": derived,
        "before": lambda r, v: r.created < _made(engine, v),
        "since": lambda r, v: r.created > _made(engine, v),
        "volume": lambda r, v: any(v in (m["Name"], m["Destination"]) for m in describe.mounts(engine, r)),
        "network": lambda r, v: (
            any(v in (e.network, network_id(e.network)) for e in r.endpoints) or v == r.container.network_mode
        ),
        "health": lambda r, v: (r.health or "none") == v,
        "publish": lambda r, v: ported(((p.published, p.protocol) for p in r.ports), v),
        "expose": lambda r, v: ported(exposed(r), v),
        "is-task": lambda r, v: not truth(v, "Invalid filter 'is-task=[{}]'"),
        "isolation": lambda r, v: v == "default",
    }


def _others_exist(engine: Engine, body: translate.Document) -> None:
    """The containers that a request names are there. Raises BadRequestError, as Docker does: 404 is a missing image's."""
    host = body["HostConfig"]
    modes = [host.get(key, "") for key in ("IpcMode", "PidMode")]
    names = [(m.removeprefix("container:"), "") for m in modes if m.startswith("container:")]
    names += [(text.partition(":")[0], "") for text in host.get("VolumesFrom") or ()]
    names += [
        (name, f"could not get container for {name}: ") for name, _, _ in (t.partition(":") for t in host.get("Links") or ())
    ]
    for name, what in names:
        try:
            engine.containers.find(name)
        except NotFoundError as error:
            raise BadRequestError(f"{what}{error}") from None


async def create(request: web.Request) -> web.Response:
    """Create a container (ContainerCreate)."""
    engine = request.app[ENGINE]
    document, name = translate.named(body(request)), request.query.get("name", "").removeprefix("/")
    if name:
        checks.name(name)
    checks.create(document)
    payload = translate.container(document)
    parse(payload.image)  # an invalid name is a fault of the request, not a missing image
    image = engine.images.find(payload.image)
    images.suits(image, payload.image, request.query.get("platform", ""))
    _others_exist(engine, document)
    try:
        engine.runtime.known(payload.runtime)
    except BadRequestError:
        raise BadRequestError(f"Unknown runtime specified {payload.runtime}") from None
    if document["HostConfig"].get("PublishAllPorts"):
        config = image.config.config
        payload = translate.all_published(payload, (*payload.expose, *((config and config.exposed_ports) or ())))
    known = (
        msgspec.structs.replace(a, network=engine.networks.table.get(a.network).name)
        if engine.networks.table.has(a.network)
        else a
        for a in payload.attachments
    )
    payload = msgspec.structs.replace(payload, attachments=tuple(known))
    for one in payload.attachments:
        networks.addressable(engine, one)
    host = document["HostConfig"]
    options = {m["Source"]: m.get("VolumeOptions", {}) for m in host.get("Mounts", ()) if m.get("Source")}
    default = {"DriverConfig": {"Name": host.get("VolumeDriver", "")}}
    named = {m.source: options.get(m.source, default) for m in payload.mounts if m.kind == "volume" and m.source}
    for volume, how in named.items():
        if volume not in engine.volumes.all:
            volumes.driver_of(volume, how.get("DriverConfig", {}).get("Name", ""))
    record = creating.create(engine.context, payload, name=name, auto_remove=bool(host.get("AutoRemove")), asked=document)
    for volume, how in named.items():  # as in Docker they are there from now on
        volumes.make(engine, volume, how)
    _anonymous(engine, record, (image.config.config and image.config.config.volumes) or {})
    return answer({"Id": record.id, "Warnings": [*record.notes, *checks.warnings(host)]}, 201)


def _anonymous(engine: Engine, record: Record, of_image: Iterable[str]) -> None:
    """Create the anonymous volumes of *record*, also those of its image (*of_image*)."""
    mounts = record.container.mounts
    taken = {m.target for m in (*mounts, *describe.others(engine, record)) if m.source or m.kind != "volume"}
    for target in (*(m.target for m in mounts), *of_image):
        if target not in taken:
            mount_sources.anonymous(engine.context, record, target)
    if record.anonymous:
        engine.containers.transition(record, anonymous=record.anonymous)


async def inspect(request: web.Request) -> web.Response:
    """Describe a container, with its sizes on request (ContainerInspect)."""
    engine, record = request.app[ENGINE], _record(request)
    document = describe.inspected(engine, record, execs.of(record), minor(request))
    if flag(request, "size"):
        if image := describe.image_of(engine, record):
            await engine.sizes.learn([image])
        document |= await asyncio.to_thread(describe.sizes, engine, record)
    return answer(document)


async def start(request: web.Request) -> web.Response:
    """Start a container (ContainerStart)."""
    await request.app[ENGINE].start(_record(request))
    return web.Response(status=204)


def _grace(request: web.Request) -> float | None:
    """The grace period in seconds before a kill; None for the container's own, and -1 waits for ever."""
    wait = seconds(request, "t")
    return translate.FOR_EVER_S if wait is not None and wait < 0 else wait


async def stop(request: web.Request) -> web.Response:
    """Stop a container (ContainerStop)."""
    number = signal_number(request.query["signal"]) if request.query.get("signal") else 0
    await stopping.stop(request.app[ENGINE].context, _record(request), grace_s=_grace(request), number=number)
    return web.Response(status=204)


async def restart(request: web.Request) -> web.Response:
    """Stop and start a container (ContainerRestart)."""
    await request.app[ENGINE].restart(_record(request), grace_s=_grace(request))
    return web.Response(status=204)


async def kill(request: web.Request) -> web.Response:
    """Send a container a signal, SIGKILL by default (ContainerKill)."""
    word = request.query.get("signal") or "SIGKILL"
    try:
        number = signal_number(word)
        await stopping.kill(request.app[ENGINE].context, _record(request), number)
    except (BadRequestError, NotFoundError, ConflictError) as error:
        if isinstance(error, BadRequestError):
            if not re.fullmatch("[1-9][0-9]{1,8}", word):
                raise
            error = BadRequestError(f"The linux daemon does not support signal {word}")
        raise type(error)(f"Cannot kill container: {request.match_info['name']}: {error}") from None
    return web.Response(status=204)


async def pause(request: web.Request) -> web.Response:
    """Freeze the processes of a container (ContainerPause)."""
    await stopping.pause(request.app[ENGINE].context, _record(request))
    return web.Response(status=204)


async def unpause(request: web.Request) -> web.Response:
    """Thaw the processes of a container (ContainerUnpause)."""
    await stopping.resume(request.app[ENGINE].context, _record(request))
    return web.Response(status=204)


CONDITIONS = ("not-running", "next-exit", "removed")


async def wait(request: web.Request) -> web.StreamResponse:
    """The head goes out at once, so that a client can start the container after it began to wait."""
    engine, record = request.app[ENGINE], _record(request)
    condition = request.query.get("condition") or "not-running"
    if condition not in CONDITIONS:
        raise BadRequestError(f"invalid condition: {condition!r}: there is {', '.join(CONDITIONS)}")
    ends = record.ends
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if condition == "removed":
        while record.id in engine.containers.records and record.id not in engine.containers.stuck:
            await engine.containers.wait_for_change(record)
    elif condition == "next-exit":
        while record.ends == ends and record.id in engine.containers.records:
            await engine.containers.wait_for_change(record)
    else:
        while (record.running or record.state in ("starting", "restarting")) and record.id in engine.containers.records:
            await engine.containers.wait_for_change(record)
    status: dict[str, object] = {"StatusCode": record.exit_code or 0}
    if condition == "removed" and record.id in engine.containers.stuck:
        status["Error"] = {"Message": f"container {record.name} cannot be removed"}
    elif minor(request) < 42:  # those clients check whether it is null
        status["Error"] = None
    await response.write(msgspec.json.encode(status))
    return response


async def remove(request: web.Request) -> web.Response:
    """Remove a container, on request with its anonymous volumes (ContainerDelete)."""
    if flag(request, "link"):  # what is meant is a link, of which the container's own name is none
        _record(request)
        raise ConflictError("Conflict, cannot remove the default link name of the container")
    await request.app[ENGINE].remove(_record(request), force=flag(request, "force"), volumes=flag(request, "v"))
    return web.Response(status=204)


async def unlink(request: web.Request) -> web.Response:
    """Remove the link that the container `name` calls `alias`, and not what it leads to (ContainerDelete with `link`)."""
    engine, name, alias = request.app[ENGINE], request.match_info["name"], request.match_info["alias"]
    if not flag(request, "link"):
        raise ConflictError(f"{name}/{alias} is a link of {name}: link=true removes it")
    _record(request)  # raises where there is no such link
    record = engine.containers.find(name)
    links = tuple(link for link in record.container.links if link[0] != alias)
    host = record.asked["HostConfig"]
    kept = [text for text in host.get("Links") or () if translate.links_of({"Links": [text]})[0][0] != alias]
    engine.containers.transition(
        record,
        container=msgspec.structs.replace(record.container, links=links),
        asked=record.asked | {"HostConfig": host | {"Links": kept}},
    )
    return web.Response(status=204)


def _when(request: web.Request, name: str) -> str:
    """A time of the query, to the nanosecond if it is one rather than a duration; "" if it is missing."""
    at = moment(request, name)
    if at is None:
        return ""
    try:
        logs.instant(request.query[name])
    except ValueError:
        return str(at)
    return request.query[name]


def _details(record: Record) -> str:
    """Labels and variables of the container that its log options name. Source: Docker, "JSON File logging driver"."""
    c, options = record.container, dict(record.container.log_options)
    found = []
    for option, known in (("labels", dict(c.labels)), ("env", dict(c.environment))):
        wanted = [w for w in options.get(option, "").split(",") if w]
        found += [(key, known[key]) for key in wanted if key in known]
        if pattern := options.get(f"{option}-regex", ""):
            found += [(key, value) for key, value in known.items() if re.search(pattern, key)]
    return ",".join(f"{quote(key)}={quote(value)}" for key, value in sorted(found))


async def read_logs(request: web.Request) -> web.StreamResponse:
    """Stream the log of a container (ContainerLogs)."""
    engine, record = request.app[ENGINE], _record(request)
    if record.container.log_driver == "none":
        raise NotImplementedHereError("configured logging driver does not support reading")
    tail = request.query.get("tail") or "all"
    wanted = {n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)}
    if not wanted and "version" in request.match_info:
        raise BadRequestError("Bad parameters: you must choose at least one stream")
    wanted = wanted or {1, 2}
    stamps, marks = flag(request, "timestamps"), flag(request, "marks")
    details = f"{_details(record)} ".encode() if flag(request, "details") else b""
    raw = record.container.tty and not marks
    since, until = (_when(request, name) for name in ("since", "until"))
    response = web.StreamResponse(headers={"Content-Type": MULTIPLEXED if not raw and minor(request) >= 42 else RAW})
    await response.prepare(request)
    lines = logs.read(
        engine.paths.container(record.id) / "log",
        follow=flag(request, "follow"),
        tail=int(tail) if re.fullmatch(r"[0-9]{1,9}", tail) else None,
        since=since,
        until=until,
        ended=lambda: record.state in ("exited", "failed", "created") or record.id not in engine.containers.records,
    )
    pending = b""
    async for line in lines:
        if line is logs.IDLE:
            pending += frame(0, b"") if marks else b""  # Docker has no frame of that kind: ours mark where the past ends
            marks = False
        elif line.stream in wanted:
            text = (f"{line.time.replace('+00:00', 'Z')} ".encode() if stamps else b"") + details + line.text
            pending += text if raw else frame(line.stream, text)
        if pending and (line is logs.IDLE or len(pending) > 1 << 14):
            await response.write(pending)
            pending = b""
    if pending:
        await response.write(pending)
    return response


async def prune(request: web.Request) -> web.Response:
    """Delete containers that do not run, but for tasks of stacks."""
    engine = request.app[ENGINE]
    idle = [
        r
        for r in engine.containers.records.values()
        if not r.task and not r.running and r.state not in ("starting", "restarting")
    ]
    filters = Filters(request)
    filters.check(until=moment_of)
    doomed = filters.chosen(
        idle,
        {
            "label": lambda r, v: labelled(describe.all_labels(engine, r), v),
            "label!": lambda r, v: not labelled(describe.all_labels(engine, r), v),
            "until": lambda r, v: logs.instant(r.created) < moment_of(v),
        },
    )
    gone, freed = [], 0
    for record in doomed:
        size = await asyncio.to_thread(used, engine.paths.container(record.id) / "upper")
        with contextlib.suppress(ConflictError):  # it was started meanwhile
            await engine.remove(record)
            gone.append(record.id)
            freed += size
    engine.events.emit("container", "prune", "", {"reclaimed": str(freed)})
    return answer({"ContainersDeleted": gone, "SpaceReclaimed": freed})
