"""Streams of one task for a page: its log and what it uses as server-sent events, a shell over a WebSocket.

Source: HTML Living Standard, section 9.2 (server-sent events); Docker Engine API v1.47, attach (the stream format), stats,
exec; RFC 6455.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from agent.contract.task import Task
from orchestrator.errors import PystackError, RefusedError
from orchestrator.server.api.guard import change_of
from orchestrator.server.api.responses import PLANE
from orchestrator.transport.agent_client import AgentClient

LINE_MAX = 16 << 10
"""Bytes of a line of a log that a page gets."""
TAIL_MAX = 5000
BATCH = 200
"""Lines of one event."""
ALIVE_S = 15.0
"""How often a stream sends something at least, so that no proxy between ends it."""
CHUNK = 1 << 16
SHELL = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"]


async def sse(request: web.Request) -> web.StreamResponse:
    """An answer that is a stream of events, begun."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    return response


async def send(response: web.StreamResponse, event: str, data: Any) -> None:
    """One event; JSON has no newlines."""
    await response.write(b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data)))


async def keep_alive(response: web.StreamResponse) -> None:
    """Write a comment now and then."""
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(ALIVE_S)
            await response.write(b": \n\n")


def _found(request: web.Request) -> tuple[Task, AgentClient, str]:
    """The task that the request names, its node's client, and its container. Raises RefusedError (404, 409)."""
    plane, stack, name = request.app[PLANE], request.match_info["stack"], request.match_info["task"]
    task = plane.state.tasks.get(name)
    if task is None or task.stack != stack:
        raise RefusedError(f"stack {stack} has no task {name}", 404)
    status = plane.statuses.by_task.get(name)
    if status is None or not status.container:
        raise RefusedError(f"task {name} has no container yet", 409)
    return task, plane.cluster.get(task.node).client, status.container


class Lines:
    """Lines of a container's output, of bytes that come in any pieces: (stream, line) with 1 for stdout and 2 for stderr."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._bytes = b""
        self._parts = {1: b"", 2: b""}

    def feed(self, data: bytes) -> Iterator[tuple[int, str]]:
        """The lines that *data* ends."""
        if self._raw:
            yield from self._split(1, data)
            return
        self._bytes += data
        while len(self._bytes) >= 8:
            length = int.from_bytes(self._bytes[4:8], "big")
            if len(self._bytes) < 8 + length:
                return
            stream, payload = self._bytes[0], self._bytes[8 : 8 + length]
            self._bytes = self._bytes[8 + length :]
            yield from self._split(2 if stream == 2 else 1, payload)

    def _split(self, stream: int, data: bytes) -> Iterator[tuple[int, str]]:
        *whole, rest = (self._parts[stream] + data).split(b"\n")
        self._parts[stream] = rest[:LINE_MAX]
        for line in whole:
            yield stream, line[:LINE_MAX].decode(errors="replace").rstrip("\r")


async def logs(request: web.Request) -> web.StreamResponse:
    """The log of a task, the last `tail=` lines and what follows, as server-sent events."""
    task, client, container = _found(request)
    tail = min(int(request.query.get("tail", "500")), TAIL_MAX)
    follow = "0" if request.query.get("follow") == "0" else "1"
    lines = Lines(raw=task.container.tty)
    chunks = client.chunks(f"/containers/{container}/logs?stdout=1&stderr=1&timestamps=1&follow={follow}&tail={tail}")
    response = await sse(request)
    alive = asyncio.create_task(keep_alive(response))
    try:
        async for chunk in chunks:
            found = list(lines.feed(chunk))
            for at in range(0, len(found), BATCH):
                await send(response, "lines", found[at : at + BATCH])
        await send(response, "end", "")
    except PystackError as error:
        await send(response, "end", str(error))
    finally:
        alive.cancel()
    return response


async def stats(request: web.Request) -> web.StreamResponse:
    """What a task uses, each second, as server-sent events: cores, bytes, and bytes a second."""
    _, client, container = _found(request)
    response = await sse(request)
    before: dict[str, Any] = {}
    try:
        async for now in client.stream("GET", f"/containers/{container}/stats?stream=1"):
            seen = _counters(now)
            if before and seen["at"] > before["at"]:
                await send(response, "stats", _rates(before, seen))
            before = seen
        await send(response, "end", "")
    except PystackError as error:
        await send(response, "end", str(error))
    return response


def _counters(now: dict[str, Any]) -> dict[str, Any]:
    networks = (now.get("networks") or {}).values()
    disk = (now.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    memory = now.get("memory_stats") or {}
    return {
        "at": time.monotonic(),
        "cpu": ((now.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0),
        "memory": memory.get("usage", 0),
        "limit": memory.get("limit", 0),
        "received": sum(n.get("rx_bytes", 0) for n in networks),
        "sent": sum(n.get("tx_bytes", 0) for n in networks),
        "read": sum(e["value"] for e in disk if e.get("op", "").lower() == "read"),
        "written": sum(e["value"] for e in disk if e.get("op", "").lower() == "write"),
    }


def _rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
    passed = now["at"] - before["at"]
    rates = {key: max(0.0, (now[key] - before[key]) / passed) for key in ("received", "sent", "read", "written")}
    return {
        "cpu": max(0.0, (now["cpu"] - before["cpu"]) / passed / 1e9),
        "memory": now["memory"],
        "limit": now["limit"],
    } | rates


async def shell(request: web.Request) -> web.StreamResponse:
    """A shell in a task, over a WebSocket: bytes both ways; {"cols", "rows"} as text is the size of the terminal."""
    task, client, container = _found(request)
    change_of(request).target = f"{task.name}: {' '.join(SHELL)}"
    wanted = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": True,
        "Cmd": SHELL,
        "Env": ["TERM=xterm-256color"],
    }
    made = await client.call("POST", f"/containers/{container}/exec", json=wanted)
    reader, writer = await _started(client, made["Id"])
    socket = web.WebSocketResponse(heartbeat=ALIVE_S, max_msg_size=1 << 20)
    outward: asyncio.Task[None] | None = None
    try:
        await socket.prepare(request)
        outward = asyncio.create_task(_to_page(reader, socket))
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()
            elif message.type == WSMsgType.TEXT:
                await _resize(client, made["Id"], message.data)
    finally:
        writer.close()
        if outward:
            outward.cancel()
            await asyncio.gather(outward, return_exceptions=True)
    return socket


async def _resize(client: AgentClient, ident: str, text: str) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, RefusedError):
        size = json.loads(text)
        cols, rows = (max(1, min(1000, int(size[k]))) for k in ("cols", "rows"))
        await client.call("POST", f"/exec/{ident}/resize?w={cols}&h={rows}")


async def _to_page(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            await socket.send_bytes(data)
    await socket.close()


async def _started(client: AgentClient, ident: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The connection of an exec that runs now. Raises RefusedError."""
    body = b'{"Detach":false,"Tty":true}'
    reader, writer = await asyncio.open_unix_connection(client.socket, limit=1 << 18)
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
    head = f"POST /exec/{ident}/start HTTP/1.1\r\nHost: node\r\n{upgrade}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError) as error:
        writer.close()
        raise RefusedError("the node's agent went away", 502) from error
    if answer not in (b"101", b"200"):
        output = await reader.read(CHUNK)
        writer.close()
        raise RefusedError(f"the shell does not start: {output.decode(errors='replace')[:500]}", 409)
    return reader, writer
