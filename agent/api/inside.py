"""Engine API: looking into a container and reaching into it: top, stats, archive, attach.

Source: Docker Engine API v1.48, section Container; conmon(8) for the attach socket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agent import mounts
from agent.api import bandwidth
from agent.api.app_keys import ENGINE, answer, flag, since, terminal_size
from agent.api.hijack import MULTIPLEXED, RAW, Hijacked, Keys
from agent.containers import logs, usage, users
from agent.contract.frames import frame
from agent.contract.printable import quoted
from agent.contract.times import timestamp
from agent.engine.container_table import PendingAttach
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError, of_worker
from agent.trees import process
from agent.trees.workers import Worker, started

NEVER = "0001-01-01T00:00:00Z"
SETTLED_S = 10.0


def _running(request: web.Request) -> tuple[Engine, Record]:
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    if not record.running or not record.process:
        raise ConflictError(f"Container {record.id} is not running")
    return engine, record


def _group(engine: Engine, record: Record) -> str:
    return f"{engine.context.cgroup_parent(record)}/{record.id}"


async def top(request: web.Request) -> web.Response:
    """List the processes of a container by ps(1) (ContainerTop)."""
    engine, record = _running(request)
    first = record.process
    child = await asyncio.create_subprocess_exec(
        "ps",
        *(request.query.get("ps_args") or "-ef").split(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    if child.returncode:
        raise BadRequestError(f"ps: {err.decode(errors='replace').strip().partition(chr(10))[0]}")
    head, *lines = out.decode(errors="replace").splitlines() or [""]
    titles = head.split()
    if "PID" not in titles:
        raise BadRequestError("Couldn't find PID field in ps output")
    assert first  # it may have ended meanwhile
    column, inside = titles.index("PID"), usage.processes(_group(engine, record), first.pid)
    rows = [line.split(None, len(titles) - 1) for line in lines]
    engine.containers.tell(record, "top")
    return answer(
        {
            "Titles": titles,
            "Processes": [r for r in rows if len(r) > column and r[column].isdecimal() and int(r[column]) in inside],
        }
    )


async def stats(request: web.Request) -> web.StreamResponse:
    """The usage of a container (ContainerStats): one document, or with `stream` one a second. Each includes the one before,
    from which clients compute rates. A container that does not run uses nothing."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])

    def look() -> dict[str, Any]:
        head = {"id": record.id, "name": f"/{record.name}", "num_procs": 0, "storage_stats": {}}
        if not record.running or not record.process:
            return {
                **head,
                "read": NEVER,
                "cpu_stats": usage.NO_CPU,
                "memory_stats": {},
                "pids_stats": {},
                "blkio_stats": usage.NO_BLOCKS,
            }
        stamp = timestamp()
        used = usage.read(_group(engine, record), record.process.pid)
        for interface, limits in bandwidth.limits(record).items():
            used["networks"].setdefault(interface, {}).update(limits)
        return {**head, "read": stamp, **used}

    before: dict[str, Any] = {"read": NEVER, "cpu_stats": usage.NO_CPU}
    if "stream" in request.query and not flag(request, "stream"):
        if not flag(request, "one-shot") and record.running:
            before = look()
            await asyncio.sleep(1)
        return answer({**look(), "preread": before["read"], "precpu_stats": before["cpu_stats"]})
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while record.id in engine.containers.records:
        now = look()
        document = {**now, "preread": before["read"], "precpu_stats": before["cpu_stats"]}
        await response.write(json.dumps(document).encode() + b"\n")
        before = now
        await asyncio.sleep(1)
    return response


# --- archive ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _root(engine: Engine, record: Record) -> AsyncIterator[tuple[str, int]]:
    """The container's "/" on the host, and the host's ID that is root there: as its processes see it, or, while it does not
    run, its layers only, with owners as on the disk."""
    if record.running and record.process:
        yield f"/proc/{record.process.pid}/root", record.ids
        return
    async with engine.containers.lock(record):
        rootfs = engine.context.mount_root(record)
        try:
            yield str(rootfs), 0
        finally:
            mounts.unmount(rootfs)


@contextlib.asynccontextmanager
async def _copier(
    request: web.Request,
    verb: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    event: str = "",
) -> AsyncIterator[Worker]:
    """`agent.trees.copying` at work on the request's container and path; it does not outlive the request."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    path = request.query.get("path", "")
    if not path:
        raise BadRequestError("bad parameter: path cannot be empty: which file of the container?")
    async with _root(engine, record) as (root, first_id):
        words = [verb, root, path, str(first_id), engine.images.bounds]
        if verb == "put":
            words.append(json.dumps(_putting(request, record, root)))
        if event:
            engine.containers.tell(record, event)
        async with started("copying", words, stdin=stdin, stderr=asyncio.subprocess.DEVNULL) as child:
            yield child


def _putting(request: web.Request, record: Record, root: str) -> dict[str, Any]:
    """The options for putting the archive of a request into *record*, whose files are at *root*. Raises BadRequestError."""
    payload: dict[str, Any] = {"keep_kinds": flag(request, "noOverwriteDirNonDir")}
    user = record.container.user or request.app[ENGINE].context.image_config(record).user
    if flag(request, "copyUIDGID") and user:
        found = users.resolve(Path(root), user)
        payload["owner"] = (found.uid, found.gid)
    return payload


async def _answer(child: Worker, request: web.Request) -> dict[str, str]:
    """The worker's description of the path, as the header that Docker's clients read."""
    reply = process.parsed(await child.line())
    if "error" in reply:
        if reply.get("status") == NotFoundError.status:
            path, name = request.query.get("path", ""), request.match_info["name"]
            raise NotFoundError(f"Could not find the file {quoted(path)} in container {name}")
        raise of_worker(reply)
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(reply).encode()).decode()}


async def describe(request: web.Request) -> web.Response:
    """Describe a path in a container by a header (ContainerArchiveInfo)."""
    async with _copier(request, "stat") as child:
        return web.Response(headers=await _answer(child, request))


async def get(request: web.Request) -> web.StreamResponse:
    """Stream a path of a container as a tar archive (ContainerArchive)."""
    async with _copier(request, "get", event="archive-path") as child:
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **await _answer(child, request)})
        await response.prepare(request)
        while data := await child.read():
            await response.write(data)
        if await child.wait():  # an archive that breaks off must not look whole
            raise AgentError(f"{request.query.get('path')} could not be read to its end")
    return response


async def put(request: web.Request) -> web.Response:
    """Unpack a tar archive into a directory of a container (PutContainerArchive)."""
    async with _copier(request, "put", asyncio.subprocess.PIPE, "extract-to-dir") as child:
        with contextlib.suppress(ConnectionError):
            async for data in request.content.iter_chunked(1 << 18):
                await child.write(data)
            child.close_input()
        await _answer(child, request)
    return web.Response(status=200)


# --- attach ----------------------------------------------------------------------------------------------------------


async def attach(request: web.Request) -> web.StreamResponse:
    """Attach to the container's own streams (ContainerAttach), from their first byte if it was not started yet, and to its
    input if it has one. With *logs* its earlier output comes first; without *stream* nothing else does."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    payload = ExecRequest(request)
    if record.state == "paused":
        raise ConflictError(f"container {record.name} is paused, unpause the container before attach")
    if record.state == "restarting":
        raise ConflictError(f"container {record.name} is restarting, wait until the container is running")
    await request.read()  # the bytes after the request are the container's input
    kind = MULTIPLEXED if not record.container.tty and since(request, 42) else RAW
    conmon = _conmon(engine, record) if record.running and payload.stream else None
    waiting = PendingAttach()
    if not conmon and payload.stream:
        engine.containers.attaching.setdefault(record.id, []).append(waiting)
    client = Hijacked(request, kind)
    try:
        if payload.logs:
            async for line in logs.read(engine.paths.container(record.id) / "log"):
                if line.stream in payload.streams:
                    await client.send(line.text if record.container.tty else frame(line.stream, line.text))
        if not payload.stream:
            return client
        if conmon is None:  # it does not run yet, or not again
            while not waiting.ready.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await waiting.ready.wait()
                if client.closed or record.id not in engine.containers.records:
                    return client
            if waiting.failed:
                return client
            conmon = _conmon(engine, record)
    finally:
        waiting.connected.set()  # a start must not wait for a client that has gone
    engine.containers.tell(record, "attach")
    await _exchange(engine, record, conmon, client, payload)
    return client


class ExecRequest:
    """Which streams a client attaches to, and how it leaves. Raises BadRequestError."""

    def __init__(self, request: web.Request) -> None:
        asked = {n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)}
        plain = not any(name in request.query for name in ("stdin", "stdout", "stderr", "logs", "stream"))
        self.streams = {1, 2} if plain else asked
        self.stdin = plain or flag(request, "stdin")
        self.stream = plain or flag(request, "stream") or "stream" not in request.query
        self.logs = flag(request, "logs")
        self.keys = Keys(request.query.get("detachKeys", ""))


def _conmon(engine: Engine, record: Record) -> socket.socket:
    """conmon's attach socket, connected."""
    folder = os.open(engine.paths.bundle(record.id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    conmon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        conmon.connect(f"/proc/self/fd/{folder}/attach")  # the whole path can be longer than a socket's name may be
    except OSError as error:
        conmon.close()
        raise AgentError(f"container {record.name} cannot be attached to: {error.strerror}") from error
    finally:
        os.close(folder)
    return conmon


async def _exchange(engine: Engine, record: Record, conmon: socket.socket, client: Hijacked, payload: ExecRequest) -> None:
    """Both ways, until the container or the client ends it."""
    loop, c = asyncio.get_running_loop(), record.container

    async def feed() -> bool:
        """True once the client wants to leave."""
        while data := await client.reader.read(1 << 12):
            data, leaves = payload.keys.passed(data) if c.tty else (data, False)
            if data and c.stdin_open and payload.stdin:
                await loop.sock_sendall(conmon, data)
            if leaves:
                return True
        if c.stdin_once and payload.stdin and not c.tty:
            conmon.shutdown(socket.SHUT_WR)  # conmon then closes the container's input
        await client.lost()
        return True

    async def show() -> None:
        while packet := await loop.sock_recv(conmon, 1 << 15):
            stream, data = 2 if packet[0] == 3 else 1, packet[1:]  # conmon: 2 is stdout, 3 is stderr
            if c.tty or stream in payload.streams:
                await client.send(data if c.tty else frame(stream, data))

    feeder, viewer = asyncio.create_task(feed()), asyncio.create_task(show())
    try:
        await asyncio.wait({feeder, viewer}, return_when=asyncio.FIRST_COMPLETED)
        if feeder.done() and not feeder.exception() and feeder.result():
            engine.containers.tell(record, "detach")
        else:
            await viewer
            # the stream ends when the container does: its reader may at once remove the container
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_S):
                    await engine.containers.wait(record)
    except ConnectionError:
        pass
    finally:
        for task in (feeder, viewer):
            task.cancel()
        await asyncio.gather(feeder, viewer, return_exceptions=True)
        conmon.close()


async def attach_by_websocket(request: web.Request) -> web.StreamResponse:
    """The same through a WebSocket, bytes as they come, without frames."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    payload = ExecRequest(request)
    if not record.running:
        raise ConflictError(f"container {record.name} is not running")
    conmon, loop = _conmon(engine, record), asyncio.get_running_loop()
    answered = web.WebSocketResponse()
    await answered.prepare(request)

    async def feed() -> None:
        async for message in answered:
            data = message.data.encode() if message.type is aiohttp.WSMsgType.TEXT else message.data
            if record.container.stdin_open and payload.stdin:
                await loop.sock_sendall(conmon, data)

    feeder = asyncio.create_task(feed())
    try:
        while packet := await loop.sock_recv(conmon, 1 << 15):
            if record.container.tty or (2 if packet[0] == 3 else 1) in payload.streams:
                await answered.send_bytes(packet[1:])
    except ConnectionError:
        pass
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        conmon.close()
        await answered.close()
    return answered


async def resize(request: web.Request) -> web.Response:
    """Set the size of the container's terminal, through conmon's control FIFO (ContainerResize)."""
    engine, record = _running(request)
    height, width = terminal_size(request)
    order = f"1 {height} {width}\n".encode()
    try:
        fd = os.open(engine.paths.bundle(record.id) / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AgentError(f"container {record.name} cannot be resized: {error.strerror}") from error
    try:
        os.write(fd, order)
    finally:
        os.close(fd)
    engine.containers.tell(record, "resize", {"height": str(height), "width": str(width)})
    return web.Response(status=200)
