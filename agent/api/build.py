"""Engine API: build. The context is the request's body. Source: Docker Engine API v1.48, ImageBuild, BuildPrune."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from agent.api import login
from agent.api.app_keys import BUILDER, ENGINE, answer, flag, number, seconds
from agent.api.context import plain
from agent.api.filters import ALL_OF, Filters
from agent.api.images import ProgressStream, displaced, event
from agent.build import attestations, cache_option, instructions, outputs
from agent.build.agent_doors import AgentDoors
from agent.build.build_options import BuildOptions
from agent.build.cache_option import CacheOption
from agent.build.inputs import Client
from agent.build.job import run_build
from agent.build.outputs import Output, Outputs
from agent.build.report import Report
from agent.build.spool_receiver import SpoolReceiver
from agent.contract.container import Ulimit
from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.images import platforms
from agent.images.credentials import Credentials
from agent.images.reference import parse


def _given(request: web.Request, name: str, kind: type[Any], default: Any) -> Any:
    """A parameter in JSON; null is as good as none. Raises BadRequestError."""
    text = request.query.get(name) or "null"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequestError(f"{name}={quoted(text)}: it is not JSON") from None
    if value and not isinstance(value, kind):
        raise BadRequestError(f"{name}={quoted(text)}: {'an object' if kind is dict else 'a list'} is wanted here")
    return value or default


def _texts(request: web.Request, name: str) -> dict[str, str]:
    """An object of texts, without those that are null. Raises BadRequestError."""
    found = {k: v for k, v in _given(request, name, dict, {}).items() if v is not None}
    for key, value in found.items():
        if not isinstance(value, str) or "\0" in key + value:
            raise BadRequestError(f"{name}: {quoted(key)} is to be a text")
    return found


def _words(request: web.Request, name: str) -> tuple[str, ...]:
    words = _given(request, name, list, [])
    if not all(isinstance(word, str) for word in words):
        raise BadRequestError(f"{name}: a list of texts is wanted here")
    return tuple(words)


def _ulimits(request: web.Request) -> tuple[Ulimit, ...]:
    out = []
    for one in _given(request, "ulimits", list, []):
        name, soft, hard = (one.get("Name"), one.get("Soft"), one.get("Hard")) if isinstance(one, dict) else (None, None, None)
        if not isinstance(name, str) or not isinstance(soft, int) or not isinstance(hard, int):
            raise BadRequestError("ulimits: each is an object with Name, Soft and Hard")
        out.append(Ulimit(name=name, soft=soft, hard=hard))
    return tuple(out)


def _build_options(request: web.Request) -> BuildOptions:
    query = request.query
    if query.get("version", "1") not in ("1", "2"):
        raise BadRequestError(f"version={quoted(query['version'])}: 1 is the classic builder, 2 BuildKit's protocol")
    if flag(request, "squash"):
        raise BadRequestError("squash is an experimental feature, and there is none here")
    if query.get("securityopt"):
        raise BadRequestError("The daemon on this platform does not support setting security options on build")
    if query.get("isolation", "") not in ("", "default"):
        raise BadRequestError(f'Unsupported isolation: "{quoted(query["isolation"])}"')
    return BuildOptions(
        dockerfile=query.get("dockerfile") or "Dockerfile",
        remote=query.get("remote", ""),
        sent=query.get("sent", ""),
        tags=tuple(t for t in query.getall("t", []) if t),
        args=_texts(request, "buildargs"),
        target=query.get("target", ""),
        labels=_texts(request, "labels"),
        no_cache=flag(request, "nocache"),
        no_cache_filter=_words(request, "nocachefilter"),
        pull=flag(request, "pull"),
        network=query.get("networkmode", ""),
        platforms=tuple(platforms.buildable(text) for text in query.get("platform", "").split(",") if text),
        shm_size=number(request, "shmsize"),
        ulimits=_ulimits(request),
        contexts=_texts(request, "contexts"),
        extra_hosts=tuple(h for words in query.getall("extrahosts", []) for h in words.split(",") if h),
        privileged=flag(request, "privileged"),
        entitlements=_words(request, "entitlements"),
        memory=max(0, number(request, "memory")),
        memory_swap=number(request, "memswap"),
        cpu_shares=number(request, "cpushares"),
        cpu_period=number(request, "cpuperiod"),
        cpu_quota=number(request, "cpuquota"),
        cpuset=query.get("cpusetcpus", ""),
        cgroup_parent=query.get("cgroupparent", ""),
        cache_from=_caches(request, "cachefrom", plain=cache_option.HERE),
        cache_to=_caches(request, "cacheto"),
        attestations=_attestations(request),
        agents=_texts(request, "agents"),
        timeout_s=max(0.0, seconds(request, "timeout") or 0.0),
    )


def _caches(request: web.Request, name: str, *, plain: str = "registry") -> tuple[CacheOption, ...]:
    """A list of caches. For version 2 a name alone is a registry's, as BuildKit has it; classic, an image of this node's."""
    kind = "registry" if request.query.get("version") == "2" else plain
    return tuple(cache_option.option(text, plain=kind) for text in _words(request, name))


def _attestations(request: web.Request) -> dict[str, dict[str, str]]:
    found = {name: attestations.wanted(name, text) for name, text in _texts(request, "attests").items()}
    return {name: options for name, options in found.items() if options is not None}


class RequestClient(Client):
    """Who sent all in the request: the context as its body, logins in a header."""

    def __init__(self, logins: Mapping[str, Credentials], agents: Mapping[str, str], doors: AgentDoors) -> None:
        self._logins, self._agents, self._doors = logins, agents, doors

    async def credentials(self, host: str) -> Credentials | None:
        """The credentials for *host* in X-Registry-Config."""
        return login.for_host(self._logins, host)

    async def has_agent(self, ident: str) -> bool:
        """Whether our own client lends an SSH agent *ident*."""
        return ident in self._agents

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a program speak to the client's SSH agent."""
        await self._doors.forward(self._agents[ident], reader, writer)


async def build(request: web.Request) -> web.StreamResponse:
    """POST /build: the classic builder, or BuildKit's for version 2. Streams the progress as JSON lines."""
    if request.query.get("version") == "2":
        from agent.api import buildkit

        if request.query.get("buildid", "").startswith(f"{buildkit.UPLOAD}:"):
            return await buildkit.upload(request)
        return await buildkit.build(request, _build_options(request))
    engine, builder, quiet = request.app[ENGINE], request.app[BUILDER], flag(request, "q")
    options, credentials = _build_options(request), login.all_sent(request)
    names = [parse(tag) for tag in options.tags]
    stream = ProgressStream(request)

    def say(text: str) -> None:
        if not quiet:
            stream.tell({"stream": text})

    def pulled(step: dict[str, object]) -> None:
        if not quiet:
            stream.tell(step)

    async def work() -> None:
        before = {engine.images.names.get(name.name, "") for name in names}
        context: AsyncIterator[bytes] = plain(request.content.iter_any())
        report, client = Report(say, pulled), RequestClient(credentials, options.agents, builder.doors)
        wanted = outputs.asked(request.query.get("outputs", "")) or [Output("image", {})]
        options.push = outputs.pushed(wanted)
        receiver = SpoolReceiver(builder.spool, client, lambda output: stream.tell({"aux": {"Output": output}}))
        made = await run_build(builder, options, context, report, client, Outputs(wanted, receiver))
        for digest in before:
            displaced(engine, digest)
        image = made.image
        if image is None:
            return
        if quiet:
            stream.tell({"stream": f"{image.id}\n"})
            return
        stream.tell({"aux": {"ID": image.id}})
        stream.tell({"stream": f"Successfully built {image.id[7:19]}\n"})
        for reference in names:
            event(engine, "tag", image, reference.familiar)
            stream.tell({"stream": f"Successfully tagged {reference.familiar}\n"})

    return await stream.run(work())


async def session(request: web.Request) -> web.StreamResponse:
    """BuildKit's `/session`."""
    from agent.api import buildkit

    return await buildkit.session(request)


async def services(request: web.Request) -> web.StreamResponse:
    """BuildKit's `/grpc`."""
    from agent.api import buildkit

    return await buildkit.grpc(request)


PRUNED_BY = ("until", "unused-for")


async def prune(request: web.Request) -> web.Response:
    """What builds keep for the next ones goes: all of it, what was unused for some time, or down to a size."""
    filters = Filters(request)
    try:
        filters.chosen((), dict.fromkeys((*PRUNED_BY, *ALL_OF), lambda entry, value: True))
    except BadRequestError as error:
        raise BadRequestError(f"failed to prune build cache: {error}") from None
    if filters["label"]:  # nothing that builds keep has any
        return answer({"CachesDeleted": [], "SpaceReclaimed": 0})
    spans = filters["until"] or filters["unused-for"]
    older_s = 0.0
    for text in spans:
        try:
            older_s = instructions.nanoseconds(str(text), "until") / 1e9
        except ValueError as error:
            raise BadRequestError(f"filters: {error}") from None
    keep = max(number(request, name) for name in ("keep-storage", "reserved-space"))
    gone, freed = await request.app[BUILDER].prune(older_s=older_s, keep_bytes=max(0, keep))
    return answer({"CachesDeleted": gone, "SpaceReclaimed": freed})


def usage(request: web.Request) -> list[dict[str, Any]]:
    """The build cache as `docker system df` lists it."""
    from agent.contract.times import timestamp

    builder = request.app[BUILDER]
    shared = {name for image in builder.engine.images.everything() for name in (d[7:27] for d in image.layers)}
    return [
        {
            "ID": e.key[:25],
            "Parent": "",
            "Parents": None,
            "Type": "regular",
            "Description": e.note,
            "InUse": False,
            "Shared": e.layer in shared,
            "Size": e.disk,
            "CreatedAt": timestamp(e.created),
            "LastUsedAt": timestamp(e.used),
            "UsageCount": e.count,
        }
        for e in builder.cache.entries.values()
        if e.layer
    ]
