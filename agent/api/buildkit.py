"""Engine API: BuildKit. `/session` and `/grpc` take the connection over; `POST /build?version=2` builds for a session.

Source: Docker Engine API v1.48, Session, "Start interactive session"; BuildKit's services behind it: `agent.buildkit`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec
from aiohttp import web

from agent.api.app_keys import BUILDER, ENGINE, flag
from agent.api.context import plain
from agent.api.images import ProgressStream, displaced, event
from agent.build import outputs
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.job import run_build
from agent.build.outputs import Output, Outputs
from agent.buildkit import wire
from agent.buildkit.client import UploadClient
from agent.buildkit.control import Control
from agent.buildkit.grpc import Connection
from agent.buildkit.messages import Status
from agent.buildkit.receiver import SessionReceiver
from agent.buildkit.sessions import Sessions
from agent.buildkit.vertexes import VertexReport
from agent.contract.printable import quoted
from agent.contract.takeover import Taken, Written
from agent.engine.engine import Engine
from agent.errors import BadRequestError, NotFoundError
from agent.images.reference import parse

EXPOSED = "X-Docker-Expose-Session-"
MOST_METHODS = 1000
UPLOAD, SESSION = "upload-request", "client-session"
UPLOAD_S = 60.0
"""Seconds for which a context that came waits for its build, and a build for its context."""


class Upload(NamedTuple):
    """A context that came by itself: when a build begins to read it, and when it is read."""

    body: AsyncIterator[bytes]
    begun: asyncio.Event
    read: asyncio.Event


class Services:
    """What a node's BuildKit has: sessions, builds, contexts on their way."""

    def __init__(self, engine: Engine, builder: Builder) -> None:
        self.sessions = Sessions()
        self.control = Control(engine, builder, self.sessions)
        self._uploads: dict[str, asyncio.Future[Upload]] = {}

    def upload(self, ident: str) -> asyncio.Future[Upload]:
        """Where the context of the build *ident* and the build come together."""
        return self._uploads.setdefault(ident, asyncio.get_running_loop().create_future())

    async def uploaded(self, ident: str) -> AsyncIterator[bytes]:
        """The context of the build *ident*, as it comes. Raises NotFoundError."""
        try:
            async with asyncio.timeout(UPLOAD_S):
                upload = await asyncio.shield(self.upload(ident))
        except TimeoutError:
            raise NotFoundError(f"no context came for the build {quoted(ident)}") from None
        finally:
            self._uploads.pop(ident, None)
        upload.begun.set()
        try:
            async for data in upload.body:
                yield data
        finally:
            upload.read.set()

    def forget(self, ident: str) -> None:
        """Nobody asks for this context."""
        self._uploads.pop(ident, None)


_SERVICES: WeakKeyDictionary[Engine, Services] = WeakKeyDictionary()


def services(request: web.Request) -> Services:
    """Those of the node."""
    engine = request.app[ENGINE]
    if engine not in _SERVICES:
        _SERVICES[engine] = Services(engine, request.app[BUILDER])
    return _SERVICES[engine]


def _taken(request: web.Request) -> Taken:
    """The connection of *request*, which both sides speak HTTP/2 over from now on. Raises BadRequestError."""
    if request.headers.get("Upgrade", "").lower() != "h2c":
        raise BadRequestError(f"{request.path}: the connection is to be upgraded to h2c")
    taken = Taken(request)
    taken.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    return taken


async def session(request: web.Request) -> web.StreamResponse:
    """A client lends its files, secrets and logins, as long as the connection lasts."""
    ident = request.headers.get(f"{EXPOSED}Uuid", "")
    sessions = services(request).sessions
    sessions.check(ident)
    methods = request.headers.getall(f"{EXPOSED}Grpc-Method", [])[:MOST_METHODS]
    await sessions.serve(_taken(request), ident, request.headers.get(f"{EXPOSED}Sharedkey", ""), methods)
    return Written()


async def grpc(request: web.Request) -> web.StreamResponse:
    """A client calls BuildKit's services."""
    handlers = services(request).control.handlers()
    await Connection(_taken(request), client=False, handlers=handlers).run()
    return Written()


async def upload(request: web.Request) -> web.StreamResponse:
    """A context by itself, which the build of the same ID takes."""
    ident, node = request.query.get("buildid", "").removeprefix(f"{UPLOAD}:"), services(request)
    place = node.upload(ident)
    if place.done():
        raise BadRequestError(f"the build {quoted(ident)} has its context already")
    came = Upload(plain(request.content.iter_any()), asyncio.Event(), asyncio.Event())
    place.set_result(came)
    try:
        async with asyncio.timeout(UPLOAD_S):
            await came.begun.wait()
    except TimeoutError:
        raise NotFoundError(f"no build {quoted(ident)} asked for its context") from None
    finally:
        node.forget(ident)
    await came.read.wait()
    return web.Response()


async def build(request: web.Request, options: BuildOptions) -> web.StreamResponse:
    """`POST /build?version=2`: what it says is BuildKit's statuses, one a line."""
    node, engine, builder = services(request), request.app[ENGINE], request.app[BUILDER]
    ident = request.query.get("buildid", "")
    wanted = outputs.asked(request.query.get("outputs", "")) or [Output("image", {"name": ",".join(options.tags)})]
    stream = ProgressStream(request, always=True)
    names = [parse(tag) for tag in options.tags]

    def report(status: Status) -> None:
        stream.tell({"id": "moby.buildkit.trace", "aux": base64.b64encode(wire.encode(status)).decode()})

    async def work() -> None:
        before = {engine.images.names.get(name.name, "") for name in names}
        lent = await node.sessions.get(request.query.get("session", ""))
        making = Outputs(wanted, SessionReceiver(lent))
        if options.remote == UPLOAD:
            plan, files = msgspec.structs.replace(options, remote=""), node.uploaded(ident)
            made = await run_build(builder, plan, files, VertexReport(report), UploadClient(lent), making)
        else:
            plan = msgspec.structs.replace(options, remote="" if options.remote == SESSION else options.remote)
            client, body = await node.control.context(lent, plan)
            made = await run_build(builder, plan, body, VertexReport(report), client, making)
        for digest in before:
            displaced(engine, digest)
        if made.image:
            for reference in names:
                event(engine, "tag", made.image, reference.familiar)
            stream.tell({"id": "moby.image.id", "aux": {"ID": made.image.id}})
            if flag(request, "q"):
                stream.tell({"stream": f"{made.image.id}\n"})

    return await stream.run(work())
