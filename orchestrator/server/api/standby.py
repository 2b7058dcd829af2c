"""The application of a server that does not lead: it refuses, or answers from memory while no server can lead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from orchestrator import LEADER, STALE
from orchestrator.server import proxy
from orchestrator.server.api.extension import ApiExtension
from orchestrator.server.api.guard import guard, trust
from orchestrator.server.api.responses import PLANE, Handler, errors
from orchestrator.server.api.routes import ROUTES
from orchestrator.server.plane import ControlPlane
from orchestrator.server.standby_nodes import StandbyNodes, needs_no_leader
from orchestrator.server.statuses import Statuses
from orchestrator.server.store_copy import StoreCopy
from orchestrator.store.interface import StoreError

READABLE_WHEN_STALE = frozenset(
    {
        "/v1/version",
        "/v1/stacks",
        "/v1/stacks/{stack}",
        "/v1/stacks/{stack}/tasks",
        "/v1/nodes",
        "/v1/nodes/{node}",
        "/v1/{kind:config|secret}s",
        "/v1/{kind:config|secret}s/{name}",
        "/v1/stacks/{stack}/services/{service}/why",
    }
)
"""The paths of which a GET needs nothing but memory."""
LOOK_S = 2.0
ELECTION_S = 10.0
"""For how long a store that does not answer may be busy with the election of a leader of its own."""


class StandbyState:
    """Why this server does not lead (*reason*). If *store_unreachable*, no server can lead. *last_plane* and *extensions*
    are what this server last knew, when it led or by its *copy* of the store, None if it knows nothing; *since* is how old that
    is, in monotonic seconds."""

    def __init__(self) -> None:
        self.reason = "this server is not ready yet"
        self.store_unreachable = False
        self.last_plane: ControlPlane | None = None
        self.extensions: Sequence[ApiExtension] = ()
        self.since = 0.0
        self.copy = StoreCopy()
        self.unreachable_since = 0.0
        """Since when the store does not answer, in monotonic seconds, if it does not."""
        self.last_word: Mapping[str, float] = {}
        """When the server that led before this one said something last, by the loop's clock in seconds."""
        self.waiting: web.AppRunner | None = None
        """What answers while this server does not lead."""
        self.begins = False
        """Whether this server is about to lead."""
        self.living_leader: Callable[[], Awaitable[str]] = _nobody
        """The name of the server that leads now, as the store says, "" for none. Raises StoreError."""

    async def leader(self) -> str | None:
        """The name of the server that leads, as far as it is known; "" if none does now; None if none will soon."""
        if self.store_unreachable and time.monotonic() - self.unreachable_since > ELECTION_S:
            return None
        if self.begins or self.store_unreachable:
            return ""
        try:
            return await self.living_leader()
        except StoreError:
            return ""


async def _nobody() -> str:
    return ""


def make_standby_app(state: StandbyState, trusted: Path | None = None) -> web.Application:
    """The application of a server that does not lead. It answers 503 with the reason; while no server can lead, it answers
    reads from memory, with a header that says how old they are. *trusted* is as for `make_app`."""

    async def refuse(request: web.Request) -> web.Response:
        del request
        leader = await state.leader()
        known = {} if leader is None else {LEADER: leader}
        return web.json_response({"message": state.reason}, status=503, headers=known)

    def from_memory(handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if not state.store_unreachable or state.last_plane is None:
                return await refuse(request)
            response = await handler(request)
            response.headers[STALE] = f"{time.monotonic() - state.since:.0f} {state.reason.partition(':')[0]}"
            return response

        return answer

    app = web.Application(middlewares=[errors, guard] if state.last_plane else [errors])
    trust(app, trusted)
    if state.last_plane:
        app[PLANE] = state.last_plane
        nodes = StandbyNodes(state.last_plane.cluster)
        _reach_nodes(app, nodes, lambda: state.store_unreachable, refuse)
        app.cleanup_ctx.append(_looking(nodes, state.last_plane.statuses, state))
        for extension in state.extensions:
            extension.attach(app)
        tables = ((ROUTES, READABLE_WHEN_STALE), *((e.routes, e.readable_when_stale) for e in state.extensions))
        for routes, readable in tables:
            for method, path, handler, _, _ in routes:
                if method == "GET" and path in readable:
                    app.router.add_route(method, path, from_memory(handler))
    app.router.add_route("*", "/{path:.*}", refuse)
    return app


def _looking(nodes: StandbyNodes, statuses: Statuses, state: StandbyState) -> Callable[[web.Application], AsyncIterator[None]]:
    """While no server can lead, what the nodes run is asked of themselves, again and again."""

    async def look() -> None:
        while True:
            if state.store_unreachable:
                await nodes.look(statuses)
            await asyncio.sleep(LOOK_S)

    async def context(app: web.Application) -> AsyncIterator[None]:
        del app
        task = asyncio.create_task(look(), name="look at the nodes")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return context


def _reach_nodes(app: web.Application, nodes: StandbyNodes, alone: Callable[[], bool], refuse: Handler) -> None:
    """Let `logs` and `exec` through to the nodes while no server can lead: they need none."""

    async def engine(request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path.split("/engine", 1)[1]
        if not alone() or not needs_no_leader(request.method, path):
            return await refuse(request)
        return await proxy.forward(request, await nodes.client(request.match_info["node"]), path)

    async def close(app: web.Application) -> None:
        del app
        await nodes.close()

    app.router.add_route("*", "/v1/nodes/{node}/engine/{path:.*}", engine)
    app.on_cleanup.append(close)
