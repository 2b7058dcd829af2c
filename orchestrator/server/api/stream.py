"""Answers that are a stream of events, for requests that take a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from agent.errors import user_message
from orchestrator.errors import PystackError
from orchestrator.server import registry_login
from orchestrator.server.api.guard import change_of
from orchestrator.server.events import DoneEvent, Emit, ErrorEvent, Event, Failure
from orchestrator.store.interface import FencedError
from orchestrator.tracing.export import Exporter
from orchestrator.tracing.spans import trace

log = logging.getLogger(__name__)
TRACES = web.AppKey("traces", Exporter)
"""Who sends traces; absent where nobody does."""
Work = Callable[[Emit], Awaitable[Sequence[Failure] | None]]
"""What a request does; it returns the tasks that failed."""


async def stream(request: web.Request, work: Work) -> web.StreamResponse:
    """Answer with the events of *work*, one JSON object a line; the last one is a DoneEvent or an ErrorEvent.

    If the client goes away, the work is cancelled: what was written stays, and the next `up` goes on from there."""
    queue: asyncio.Queue[Event] = asyncio.Queue()
    change = change_of(request)
    registry_login.keep(request.headers)

    def emit(event: Event) -> None:
        change.see(event)
        queue.put_nowait(event)

    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)

    async def traced() -> Sequence[Failure] | None:
        traces = request.app.get(TRACES)
        parent, route = request.headers.get("traceparent", ""), request.match_info.route.resource
        name = f"{request.method} {route.canonical if route else request.path}"
        with trace(name, parent, "server", traces.send if traces else None, **{"url.path": request.path}) as attributes:
            failures = await work(emit)
            attributes["pystack.failures"] = len(failures or ())
            return failures

    async def run() -> None:
        try:
            failures = await traced()
            emit(DoneEvent(failures=tuple(failures or ())))
        except PystackError as error:
            emit(ErrorEvent(message=str(error), again=isinstance(error, FencedError)))
        except ExceptionGroup as group:
            again = group.subgroup(FencedError) is not None
            emit(ErrorEvent(message="; ".join(str(e) for e in group.exceptions), again=again))
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            emit(ErrorEvent(message=user_message(error)))

    task = asyncio.create_task(run())
    try:
        while True:
            lines = [await queue.get()]
            while not queue.empty():
                lines.append(queue.get_nowait())
            await response.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            if isinstance(lines[-1], DoneEvent | ErrorEvent):
                return response
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
