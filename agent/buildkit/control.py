"""BuildKit's services over `/grpc`: Control, and the gateway for clients that lead their builds.

Every request for a build's status gets it from the beginning, at any time. Source: BuildKit,
api/services/control/control.proto, frontend/gateway/pb/gateway.proto, client/build.go, client/solve.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from agent.build import outputs
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.inputs import Client
from agent.build.job import Built, run_build
from agent.build.outputs import Outputs
from agent.buildkit import attributes, messages
from agent.buildkit.client import SessionClient, UploadClient
from agent.buildkit.grpc import CallError, Handler, Stream
from agent.buildkit.messages import CacheEntry, Empty, Status, Timestamp
from agent.buildkit.receiver import SessionReceiver
from agent.buildkit.sessions import PULL_UPLOAD, Session, Sessions
from agent.buildkit.vertexes import VertexReport
from agent.buildkit.wire import Message
from agent.contract.printable import quoted
from agent.engine.engine import Engine
from agent.errors import BadRequestError, NotFoundError, NotImplementedHereError
from agent.images.platforms import architecture

CONTROL, GATEWAY = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID = "buildkit-controlapi-buildid"
FORGOTTEN_S = 60.0
"""Seconds for which the status of a build that has ended can be asked for."""
UPLOAD = "http://buildkit-session/"
"""Where a client says that it sends its context as a tar of its own."""
CAPS = ("solve.base", "return", "returnmap", "proto.refarray", "importcaches", "frontend.inputs", "gateway.solve.metadata")
M = TypeVar("M", bound=Message)
VERSION = messages.Version(package="pystack", version="v0.13.0", revision="")
"""Of the protocol that is spoken, which clients look at."""
MOST = 200_000
"""Statuses of one build that are kept for who comes later."""


class StatusLog:
    """All statuses of a build, for each reader from the beginning."""

    def __init__(self) -> None:
        self._all: list[Status] = []
        self._more = asyncio.Event()
        self._ended = False

    def add(self, status: Status) -> None:
        """Add *status*."""
        if len(self._all) < MOST:
            self._all.append(status)
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self) -> AsyncIterator[Status]:
        """Each status, until the build has ended."""
        at = 0
        while True:
            while at < len(self._all):
                at += 1
                yield self._all[at - 1]
            if self._ended:
                return
            await self._more.wait()


class Solve:
    """One build: what it says, and, where the client leads it, what was asked for and whether the client is done."""

    def __init__(self) -> None:
        self.statuses = StatusLog()
        loop = asyncio.get_running_loop()
        self.reached: asyncio.Future[None] = loop.create_future()
        """Done when the target's files are there."""
        self.returned: asyncio.Future[None] = loop.create_future()
        """Done when the client wants the outputs."""
        self.frontend: asyncio.Future[messages.FrontendRequest | None] = loop.create_future()
        """What the client's own program asks for; None where it only wanted to know what there is."""

    def close(self) -> None:
        """End all readers."""
        self.statuses.end()
        for future in (self.reached, self.returned, self.frontend):
            if not future.done():
                future.set_exception(CallError(1, "the build has ended"))
            if not future.cancelled():
                future.exception()  # that nobody waits for it is not a fault


class Control:
    """The services of one node."""

    def __init__(self, engine: Engine, builder: Builder, sessions: Sessions) -> None:
        self.engine, self.builder, self.sessions = engine, builder, sessions
        self._solves: dict[str, Solve] = {}

    def handlers(self) -> dict[str, Handler]:
        """Calls by their paths."""
        calls: dict[str, Callable[[Stream], Awaitable[None]]] = {
            "/grpc.health.v1.Health/Check": self._health,
            f"{CONTROL}Solve": self._solve,
            f"{CONTROL}Status": self._status,
            f"{CONTROL}Info": self._info,
            f"{CONTROL}ListWorkers": self._workers,
            f"{CONTROL}DiskUsage": self._usage,
            f"{CONTROL}Prune": self._prune,
            f"{GATEWAY}Ping": self._ping,
            f"{GATEWAY}Solve": self._frontend,
            f"{GATEWAY}Return": self._return,
        }
        return calls

    # --- builds ------------------------------------------------------------------------------------------------------

    def _known(self, ref: str) -> Solve:
        """The build *ref*, which may be asked about before it is asked for."""
        if not ref or len(ref) > 256:
            raise BadRequestError("a build has a ref")
        return self._solves.setdefault(ref, Solve())

    async def _solve(self, stream: Stream) -> None:
        request = await _one(stream, messages.SolveRequest)
        solve = self._known(request.ref)
        try:
            done = await self._built(request, solve)
            await stream.send(messages.SolveAnswer(exporter=done.response))
        finally:
            solve.close()
            asyncio.get_running_loop().call_later(FORGOTTEN_S, self._solves.pop, request.ref, None)

    async def _built(self, request: messages.SolveRequest, solve: Solve) -> Outputs:
        if request.definition:
            raise NotImplementedHereError("this builder builds Dockerfiles, and no graphs of BuildKit's (LLB)")
        session = await self.sessions.get(request.session)
        frontend, given = request.frontend, request.attributes
        if led := not frontend:
            asked = await solve.frontend
            if asked is None:
                return Outputs([], None)
            if asked.definition:
                raise NotImplementedHereError("this builder builds Dockerfiles, and no graphs of BuildKit's (LLB)")
            frontend, given = asked.frontend, asked.options
        attributes.check(frontend, given)
        options = attributes.options(given, request.entitlements, request.cache)
        wanted = request.exporters or ((CacheEntry(type=request.exporter, attributes=request.exporter_attributes),))
        goals = [outputs.checked(one.type, one.attributes) for one in wanted]
        options.push = outputs.pushed(goals)
        making = Outputs(goals, SessionReceiver(session))
        client, body = await self.context(session, options, given.get("contextkey", ""), given.get("dockerfilekey", ""))

        async def finish(built: Sequence[Built]) -> Outputs:
            solve.reached.set_result(None)
            if led:
                await solve.returned
            return await making(built)

        return await run_build(self.builder, options, body, VertexReport(solve.statuses.add), client, finish)

    @staticmethod
    async def context(
        session: Session, options: BuildOptions, context: str = "", dockerfile: str = ""
    ) -> tuple[Client, AsyncIterator[bytes]]:
        """Who is asked for files, and the context where it is sent as a whole; *options* has where else it lies."""
        if options.remote.startswith(UPLOAD):
            options.remote, path = "", options.remote.removeprefix(UPLOAD)
            return UploadClient(session), _uploaded(session, path)
        if options.remote:
            return UploadClient(session), nothing()
        return SessionClient(session, context=context or "context", dockerfile=dockerfile or "dockerfile"), nothing()

    async def _status(self, stream: Stream) -> None:
        request = await _one(stream, messages.StatusRequest)
        async for status in self._known(request.ref).statuses.follow():
            await stream.send(status)

    # --- a client's own program --------------------------------------------------------------------------------------

    def _led(self, stream: Stream) -> Solve:
        """The build that a call of the gateway is about. Raises NotFoundError."""
        ref = (stream.headers.get(BUILD_ID) or [""])[0]
        if ref not in self._solves:
            raise NotFoundError(f"no such job {quoted(ref)}")
        return self._solves[ref]

    async def _ping(self, stream: Stream) -> None:
        await _one(stream, Empty)
        caps = tuple(messages.Cap(id=name, enabled=True) for name in CAPS)
        await stream.send(messages.PongAnswer(frontend=caps, workers=(self._worker(),)))

    async def _frontend(self, stream: Stream) -> None:
        request = await _one(stream, messages.FrontendRequest)
        solve = self._led(stream)
        if solve.frontend.done():
            raise NotImplementedHereError("a build is led to one result here, for one platform")
        attributes.check(request.frontend or "", request.options)
        solve.frontend.set_result(request)
        await asyncio.shield(solve.reached)
        await stream.send(messages.FrontendAnswer(result=messages.Result(ref=messages.Ref(id="result"))))

    async def _return(self, stream: Stream) -> None:
        request = await _one(stream, messages.ReturnRequest)
        solve = self._led(stream)
        for future in (solve.returned, solve.frontend):
            if request.error and request.error.code and not future.done():
                future.set_exception(CallError(request.error.code, request.error.message))
        for future in (solve.returned, solve.frontend):
            if not future.done():
                future.set_result(None)
        await stream.send(Empty())

    # --- about the builder -------------------------------------------------------------------------------------------

    async def _health(self, stream: Stream) -> None:
        await _one(stream, Empty)
        await stream.send(messages.HealthAnswer(status=1))

    async def _info(self, stream: Stream) -> None:
        await _one(stream, Empty)
        await stream.send(messages.InfoAnswer(version=VERSION))

    def _worker(self) -> messages.Worker:
        platform = messages.Platform(architecture=architecture(), os="linux")
        return messages.Worker(
            id="pystack", platforms=(platform,), version=VERSION, labels={"org.mobyproject.buildkit.worker.executor": "oci"}
        )

    async def _workers(self, stream: Stream) -> None:
        await _one(stream, Empty)
        await stream.send(messages.ListWorkersAnswer(record=(self._worker(),)))

    async def _usage(self, stream: Stream) -> None:
        await _one(stream, Empty)
        builder = self.builder
        rows = (
            messages.UsageRecord(
                id=entry.key[:25],
                size=entry.disk,
                created=_moment(entry.created),
                used=_moment(entry.used),
                count=entry.count,
                description=entry.note,
                kind="regular",
            )
            for entry in builder.cache.entries.values()
            if entry.layer
        )
        await stream.send(messages.UsageAnswer(record=tuple(rows)))

    async def _prune(self, stream: Stream) -> None:
        request = await _one(stream, messages.PruneRequest)
        builder = self.builder
        before = dict(builder.cache.entries)
        gone, _ = await builder.prune(
            older_s=max(0, request.keep_ns) / 1e9, keep_bytes=max(0, request.keep_bytes), everything=request.all
        )
        for key in gone:
            entry = before[key]
            await stream.send(messages.UsageRecord(id=key[:25], size=entry.disk, description=entry.note, kind="regular"))


async def _one(stream: Stream, kind: type[M]) -> M:
    """The one message of a call. Raises CallError."""
    message = await stream.receive(kind)
    if message is None:
        raise BadRequestError("the call has no message")
    return message


def _moment(when: float) -> Timestamp:
    return Timestamp(seconds=int(when), nanos=int(when % 1 * 1e9))


async def nothing() -> AsyncIterator[bytes]:
    """A tar of nothing."""
    yield bytes(1024)


async def _uploaded(session: Session, path: str) -> AsyncIterator[bytes]:
    """A tar that the client sends by itself."""
    stream = await session.connection.call(PULL_UPLOAD, [("urlpath", path)])
    await stream.end()
    async for piece in stream.messages(messages.Bytes):
        yield piece.data
