"""What services and nodes use, for a page that draws it: counters of all tasks of a node in one answer, and only while somebody
looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from agent.contract.task import Task
from agent.contract.usage import Counters
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server.api.responses import PLANE
from orchestrator.server.plane import ControlPlane
from orchestrator.ui.streams import keep_alive, send, sse

EACH_S = 2.0
SHARE = 20
"""Asking and adding up takes at most this part of the time, of a page."""
RATES = ("received", "sent", "read", "written")


async def of_stack(request: web.Request) -> web.StreamResponse:
    """What each service of a stack uses, every two seconds, as server-sent events: cores, bytes, and bytes a second."""
    plane, stack = request.app[PLANE], request.match_info["stack"]
    if stack not in plane.state.stacks:
        raise RefusedError(f"there is no stack {stack}", 404)
    return await _stream(request, lambda: [t for t in plane.state.tasks.values() if t.stack == stack], lambda t: t.service)


async def of_node(request: web.Request) -> web.StreamResponse:
    """What the tasks of a node use together, every two seconds, as server-sent events."""
    plane, node = request.app[PLANE], request.match_info["node"]
    plane.cluster.get(node)
    return await _stream(request, lambda: [t for t in plane.state.tasks.values() if t.node == node], lambda t: t.node)


async def _stream(request: web.Request, tasks: Callable[[], list[Task]], group: Callable[[Task], str]) -> web.StreamResponse:
    plane = request.app[PLANE]
    response = await sse(request)
    alive = asyncio.create_task(keep_alive(response))
    before: dict[str, Counters] = {}
    try:
        while True:
            began = time.monotonic()
            mine = {t.name: t for t in tasks()}
            now = {n: c for n, c in (await _counted(plane, {t.node for t in mine.values()})).items() if n in mine}
            if before:
                await send(response, "usage", summed(before, now, {n: group(t) for n, t in mine.items()}))
            before = now
            await asyncio.sleep(max(EACH_S, (time.monotonic() - began) * SHARE))
    finally:
        alive.cancel()


async def _counted(plane: ControlPlane, nodes: Iterable[str]) -> dict[str, Counters]:
    """The counters of all tasks on *nodes*, as far as those answer."""

    async def ask(node: str) -> dict[str, Counters]:
        try:
            found = await plane.cluster.get(node).client.call("GET", "/pystack/usage")
            return msgspec.convert(found, dict[str, Counters])
        except PystackError:  # it is silent, or its agent is of before this route
            return {}

    return {name: one for found in await asyncio.gather(*map(ask, nodes)) for name, one in found.items()}


def summed(before: Mapping[str, Counters], now: Mapping[str, Counters], groups: Mapping[str, str]) -> dict[str, Any]:
    """What tasks use, added up by *groups*; those that are seen for the first time, or whose container began again, count from
    the next time on."""
    out: dict[str, dict[str, float]] = {g: dict.fromkeys(("cpu", "memory", *RATES), 0.0) for g in groups.values()}
    for name, one in now.items():
        sums, was = out[groups[name]], before.get(name)
        sums["memory"] += one.memory
        if was is None or one.at <= was.at or one.cpu < was.cpu:
            continue
        passed = one.at - was.at
        sums["cpu"] += (one.cpu - was.cpu) / passed / 1e9
        for key in RATES:
            sums[key] += max(0, getattr(one, key) - getattr(was, key)) / passed
    return out
