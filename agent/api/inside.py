"""Engine API: looking into a container and reaching into it: top, stats, archive, attach.

Source: Docker Engine API v1.43, section Container; conmon(8) for the attach socket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from agent import mounts
from agent.api.hijack import Hijacked, frame
from agent.api.keys import ENGINE, answer, flag
from agent.containers import logs, usage
from agent.engine.engine import Attaching, Engine
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError


def _running(request: web.Request) -> tuple[Engine, Record]:
    engine = request.app[ENGINE]
    record = engine.find(request.match_info["name"])
    if not record.running or not record.process:
        raise ConflictError(f"container {record.name} is not running")
    return engine, record


def _group(engine: Engine, record: Record) -> str:
    return f"{engine.cgroup_parent(record)}/{record.id}"


async def top(request: web.Request) -> web.Response:
    engine, record = _running(request)
    child = await asyncio.create_subprocess_exec(
        "ps", *(request.query.get("ps_args") or "-ef").split(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    if child.returncode:
        raise BadRequestError(f"ps: {err.decode(errors='replace').strip()}")
    head, *lines = out.decode(errors="replace").splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise BadRequestError("ps_args must ask for the column PID")
    assert record.process
    column, inside = titles.index("PID"), usage.processes(_group(engine, record), record.process.pid)
    rows = [line.split(None, len(titles) - 1) for line in lines]
    return answer({"Titles": titles, "Processes": [r for r in rows if int(r[column]) in inside]})


async def stats(request: web.Request) -> web.StreamResponse:
    """One document, or one a second with `stream`; each carries the one before it, so that rates can be told."""
    engine, record = _running(request)

    def look() -> dict[str, Any]:
        stamp = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        assert record.process
        return {"read": stamp, "id": record.id, "name": f"/{record.name}",
                **usage.read(_group(engine, record), record.process.pid)}

    before: dict[str, Any] = {"read": "0001-01-01T00:00:00Z", "cpu_stats": {}}
    if not flag(request, "stream") and "stream" in request.query:
        if not flag(request, "one-shot"):
            before = look()
            await asyncio.sleep(1)
        return answer({**look(), "preread": before["read"], "precpu_stats": before["cpu_stats"]})
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while record.running and record.process:
        now = look()
        document = {**now, "preread": before["read"], "precpu_stats": before["cpu_stats"]}
        await response.write(json.dumps(document).encode() + b"\n")
        before = now
        await asyncio.sleep(1)
    return response


# --- archive ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _root(engine: Engine, record: Record) -> AsyncIterator[str]:
    """The container's "/" on the host: as its processes see it, or its layers alone while it does not run."""
    if record.running and record.process:
        yield f"/proc/{record.process.pid}/root"
        return
    async with engine._lock(record):
        rootfs = engine.mount_root(record)
        try:
            yield str(rootfs)
        finally:
            mounts.unmount(rootfs)


@contextlib.asynccontextmanager
async def _copier(
    request: web.Request, verb: str, stdin: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`agent.trees.copying` at work on the request's container and path; it does not outlive the request."""
    engine = request.app[ENGINE]
    record = engine.find(request.match_info["name"])
    path = request.query.get("path", "")
    if not path:
        raise BadRequestError("path is missing: which file of the container?")
    async with _root(engine, record) as root:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-E", "-s", "-m", "agent.trees.copying", verb, root, path, str(record.ids), stdin=stdin,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=Path(__file__).parents[2],
            limit=1 << 18,
        )
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _answer(child: asyncio.subprocess.Process) -> dict[str, str]:
    """What the worker says of the path, as the header that Docker's clients read it from."""
    assert child.stdout
    said: dict[str, Any] = json.loads(await child.stdout.readline() or b'{"error": "the copy ended at once"}')
    if "error" in said:
        kind = {404: NotFoundError, 400: BadRequestError}.get(said.get("status", 500), AgentError)
        raise kind(said["error"])
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(said).encode()).decode()}


async def describe(request: web.Request) -> web.Response:
    async with _copier(request, "stat") as child:
        return web.Response(headers=await _answer(child))


async def get(request: web.Request) -> web.StreamResponse:
    async with _copier(request, "get") as child:
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **await _answer(child)})
        assert child.stdout
        await response.prepare(request)
        while data := await child.stdout.read(1 << 18):
            await response.write(data)
    return response


async def put(request: web.Request) -> web.Response:
    async with _copier(request, "put", asyncio.subprocess.PIPE) as child:
        assert child.stdin
        with contextlib.suppress(ConnectionError):
            async for data in request.content.iter_chunked(1 << 18):
                child.stdin.write(data)
                await child.stdin.drain()
            child.stdin.close()
        await _answer(child)
    return web.Response(status=200)


# --- attach ----------------------------------------------------------------------------------------------------------


async def attach(request: web.Request) -> web.StreamResponse:
    """The container's own streams, from their first byte where it was not started yet; input where it has one. With *logs*
    what it said before comes first, and without *stream* nothing else."""
    engine = request.app[ENGINE]
    record = engine.find(request.match_info["name"])
    await request.read()  # what follows the request is the container's input
    kind = "raw" if record.container.tty else "multiplexed"
    over = record.state in ("exited", "failed") or ("stream" in request.query and not flag(request, "stream"))
    if record.running or over:
        conmon = None if over else _conmon(engine, record)
        client = Hijacked(request, f"application/vnd.docker.{kind}-stream")
        if flag(request, "logs"):
            async for line in logs.read(engine.directory(record) / "log"):
                await client.send(line.text if record.container.tty else frame(line.stream, line.text))
        if conmon is None:
            return client
    else:
        waiting = Attaching()
        engine.attaching.setdefault(record.id, []).append(waiting)
        client = Hijacked(request, f"application/vnd.docker.{kind}-stream")
        try:
            while not waiting.ready.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiting.ready.wait(), 1)
                if client.closed or record.id not in engine.records:
                    return client
            conmon = _conmon(engine, record)
        finally:
            waiting.connected.set()  # a start must not wait for somebody who has gone
    await _exchange(record, conmon, client)
    return client


def _conmon(engine: Engine, record: Record) -> socket.socket:
    """conmon's attach socket, connected."""
    folder = os.open(engine.bundle(record), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    conmon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        conmon.connect(f"/proc/self/fd/{folder}/attach")  # the whole path can be longer than a socket's name may be
    except OSError as error:
        conmon.close()
        raise AgentError(f"container {record.name} cannot be attached to: {error.strerror}") from error
    finally:
        os.close(folder)
    return conmon


async def _exchange(record: Record, conmon: socket.socket, client: Hijacked) -> None:
    """Both ways, until the container or the client ends it."""
    loop = asyncio.get_running_loop()

    async def feed() -> None:
        while record.container.stdin_open and (data := await client.reader.read(1 << 12)):
            await loop.sock_sendall(conmon, data)
        if record.container.stdin_once:
            conmon.shutdown(socket.SHUT_WR)  # conmon then closes the container's input

    feeder = asyncio.create_task(feed())
    try:
        while packet := await loop.sock_recv(conmon, 1 << 15):
            stream, data = packet[0], packet[1:]  # conmon: 2 is stdout, 3 is stderr
            await client.send(data if record.container.tty else frame(2 if stream == 3 else 1, data))
    except ConnectionError:
        pass
    finally:
        feeder.cancel()
        conmon.close()


async def resize(request: web.Request) -> web.Response:
    """Tell the container's terminal its size, by way of conmon's control fifo."""
    engine, record = _running(request)
    order = f"1 {int(request.query.get('h') or 0)} {int(request.query.get('w') or 0)}\n".encode()
    try:
        fd = os.open(engine.bundle(record) / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AgentError(f"container {record.name} cannot be resized: {error.strerror}") from error
    try:
        os.write(fd, order)
    finally:
        os.close(fd)
    return web.Response(status=200)
