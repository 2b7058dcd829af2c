"""Engine API: exec. The runtime joins the container; with a terminal, through a pseudo-terminal that the agent holds.

Source: Docker Engine API v1.43, section Exec; the multiplexed stream format of ContainerAttach.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable
from subprocess import DEVNULL
from typing import Any

import msgspec
from aiohttp import web

from agent import descriptors
from agent.api.hijack import Hijacked, frame
from agent.api.keys import ENGINE, answer, body
from agent.containers import users
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import ConflictError, NotFoundError
from agent.processes import Child


class Exec(msgspec.Struct, kw_only=True):
    id: str
    record: Record
    command: list[str]
    tty: bool = False
    stdin: bool = False
    environment: list[str] = []
    user: str = ""
    cwd: str = ""
    privileged: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    terminal: int = -1
    size: tuple[int, int] = (0, 0)


EXECS: dict[str, Exec] = {}


async def create(request: web.Request) -> web.Response:
    record = request.app[ENGINE].find(request.match_info["name"])
    if record.state == "paused":
        raise ConflictError(f"container {record.name} is paused: unpause it first")
    if record.state != "running":
        raise ConflictError(f"container {record.name} is not running")
    wish = body(request)
    made = Exec(
        id=os.urandom(32).hex(), record=record, command=list(wish.get("Cmd") or ()), tty=bool(wish.get("Tty")),
        stdin=bool(wish.get("AttachStdin")), environment=list(wish.get("Env") or ()), user=wish.get("User") or "",
        cwd=wish.get("WorkingDir") or "", privileged=bool(wish.get("Privileged")),
    )
    EXECS[made.id] = made
    return answer({"Id": made.id}, status=201)


def _exec(request: web.Request) -> Exec:
    try:
        return EXECS[request.match_info["id"]]
    except KeyError:
        raise NotFoundError(f"No such exec instance: {request.match_info['id']}") from None


async def inspect(request: web.Request) -> web.Response:
    found = _exec(request)
    return answer({
        "ID": found.id, "Running": found.running, "ExitCode": found.exit_code, "Pid": found.pid,
        "ContainerID": found.record.id, "OpenStdin": found.stdin, "OpenStdout": True, "OpenStderr": True, "CanRemove": False,
        "DetachKeys": "",
        "ProcessConfig": {"tty": found.tty, "entrypoint": found.command[0], "arguments": found.command[1:], "user": found.user,
                          "privileged": found.privileged},
    })


async def resize(request: web.Request) -> web.Response:
    found = _exec(request)
    found.size = int(request.query.get("h") or 0), int(request.query.get("w") or 0)
    _apply_size(found)
    return web.Response(status=200)


def _apply_size(found: Exec) -> None:
    if found.terminal >= 0 and found.size != (0, 0):
        with contextlib.suppress(OSError):
            fcntl.ioctl(found.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *found.size, 0, 0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGWINCH)


async def start(request: web.Request) -> web.StreamResponse:
    engine, found = request.app[ENGINE], _exec(request)
    wish = body(request)
    if size := wish.get("ConsoleSize"):
        found.size = size[0], size[1]
    run = _runner(engine, found)
    engine.events.emit("container", "exec_start", found.record.id, {"name": found.record.name, "execID": found.id})
    if wish.get("Detach"):
        task = asyncio.create_task(_detached(found, run))
        DETACHED.add(task)
        task.add_done_callback(DETACHED.discard)
        return web.Response(status=200)
    kind = "raw" if found.tty else "multiplexed"
    client = Hijacked(request, f"application/vnd.docker.{kind}-stream")
    attend = _with_terminal if found.tty else _with_pipes
    with contextlib.suppress(ConnectionError):
        await attend(found, run, client)
    return client


DETACHED: set[asyncio.Task[None]] = set()
Run = Callable[..., Child]


def _runner(engine: Engine, found: Exec) -> Run:
    """Starts the exec's process; its streams are still to be given."""
    directory = engine.bundle(found.record)
    return functools.partial(
        engine.runtime.exec, found.record.id, directory, found.command, tty=found.tty,
        identity=users.resolve(directory / "rootfs", found.user) if found.user else None,
        environment=[*(["TERM=xterm"] if found.tty else []), *found.environment],
        cwd=found.cwd, privileged=found.privileged, size=found.size,
    )


async def _detached(found: Exec, run: Run) -> None:
    child = run(stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    found.running, found.pid = True, child.pid
    found.exit_code = await child.wait()
    found.running = False


async def _with_pipes(found: Exec, run: Run, client: Hijacked) -> None:
    (theirs, mine), (out, their_out), (err, their_err) = os.pipe(), os.pipe(), os.pipe()
    try:
        child = run(stdin=theirs if found.stdin else DEVNULL, stdout=their_out, stderr=their_err)
    except BaseException:
        for fd in (mine, out, err):
            os.close(fd)
        raise
    finally:
        for fd in (theirs, their_out, their_err):
            os.close(fd)
    found.running, found.pid = True, child.pid

    last = b""

    async def forward(fd: int, stream: int) -> None:
        nonlocal last
        while data := await descriptors.read(fd, 1 << 15):
            last = data
            await client.send(frame(stream, data))

    async def feed() -> None:
        nonlocal mine
        with contextlib.suppress(ConnectionError):
            while data := await client.reader.read(1 << 15):
                await descriptors.write(mine, data)
        os.close(mine)
        mine = -1

    feeder = asyncio.create_task(feed()) if found.stdin else None
    try:
        await asyncio.gather(forward(out, 1), forward(err, 2))
        found.exit_code = await child.wait()
    finally:
        await _settle(found, child, feeder)
        if found.exit_code == 255 and b"not found in $PATH" in last:  # the runtime's word, for which a shell has a status
            found.exit_code = 127
        for fd in (out, err, mine):
            if fd >= 0:
                os.close(fd)


async def _with_terminal(found: Exec, run: Run, client: Hijacked) -> None:
    master, slave = pty.openpty()
    # the runtime makes the container's terminal itself; this one only carries bytes, so it must change none
    attributes: list[Any] = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    attributes[0] &= ~termios.ICRNL
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    found.terminal = master
    if found.size != (0, 0):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *found.size, 0, 0))
    child = run(stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    found.running, found.pid = True, child.pid

    async def feed() -> None:
        while data := await client.reader.read(1 << 12):
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(master, view) :]
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                except OSError:
                    return
        child.send_signal(signal.SIGHUP)  # nobody is at the terminal any more; the runtime passes it on

    feeder = asyncio.create_task(feed())
    try:
        while data := await descriptors.read(master, 1 << 15):
            await client.send(data)
        found.exit_code = await child.wait()
    finally:
        await _settle(found, child, feeder)
        found.terminal = -1
        os.close(master)


async def _settle(found: Exec, child: Child, feeder: asyncio.Task[None] | None) -> None:
    if feeder:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
    child.kill()
    await child.wait()
    found.exit_code = child.returncode
    found.running = False
