"""Engine API: exec. The runtime joins the container; with a terminal, through a pseudo-terminal that the agent holds.

Source: Docker Engine API v1.48, section Exec; the multiplexed stream format of ContainerAttach.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable
from subprocess import DEVNULL
from typing import Any

import msgspec
from aiohttp import web

from agent import descriptors
from agent.api.app_keys import ENGINE, answer, body, since, terminal_size
from agent.api.hijack import MULTIPLEXED, RAW, Hijacked, Keys
from agent.cancellation import to_end
from agent.containers import runtime, terminal, users
from agent.contract.frames import frame
from agent.contract.processes import start_time
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError
from agent.processes import ChildProcess

KEPT_S = 300.0
"""How long one that has ended can be asked about."""
STARTING_S = 0.01
"""How often it is asked whether a runtime has executed the command yet: the kernel has no event for execve(2) that a rootless
agent could wait for."""
RESIZE_TRIES, RESIZE_S = 100, 0.02
"""A command's terminal comes to be a moment after its runtime was started."""


class Exec(msgspec.Struct, kw_only=True):
    """A command in a running container; see ExecConfig and ExecInspectResponse of the Docker Engine API."""

    id: str
    record: Record
    command: list[str]
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    environment: list[str] = []
    user: str = ""
    cwd: str = ""
    privileged: bool = False
    keys: str = ""
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    ended: float = 0.0
    complaints: int = -1
    """A file with the runtime's own messages."""
    pid: int = 0
    """Of the runtime that runs it; its own process is that one's child."""
    size: tuple[int, int] = (0, 0)


EXECS: dict[str, Exec] = {}
KEPT = 2048
"""The remembered execs: the newest, and all that run."""


def of(record: Record) -> list[str]:
    """Those of a container that have not ended."""
    return [e.id for e in EXECS.values() if e.record.id == record.id and not e.ended]


def _forget(engine: Engine) -> None:
    """Forget execs that ended long ago, and those of removed containers."""
    for found in list(EXECS.values()):
        if found.record.id not in engine.containers.records or (found.ended and time.monotonic() - found.ended > KEPT_S):
            del EXECS[found.id]


def _runs(record: Record, name: str) -> None:
    if record.state == "paused":
        raise ConflictError(f"Container {name} is paused, unpause the container before exec")
    if record.state != "running":
        raise ConflictError(f"Container {record.id} is not running")


async def create(request: web.Request) -> web.Response:
    """Note a command to run in a running container (ContainerExec)."""
    engine = request.app[ENGINE]
    record = engine.containers.find(request.match_info["name"])
    payload = body(request)
    if not payload.get("Cmd"):
        raise BadRequestError("No exec command specified")
    _runs(record, request.match_info["name"])
    Keys(payload.get("DetachKeys", ""))
    _forget(engine)
    made = Exec(
        id=os.urandom(32).hex(),
        record=record,
        command=payload["Cmd"],
        tty=payload.get("Tty", False),
        stdin=payload.get("AttachStdin", False),
        stdout=payload.get("AttachStdout", False),
        stderr=payload.get("AttachStderr", False),
        environment=payload.get("Env", []),
        user=payload.get("User", ""),
        cwd=payload.get("WorkingDir", ""),
        privileged=payload.get("Privileged", False),
        keys=payload.get("DetachKeys", ""),
        size=_size(payload),
    )
    EXECS[made.id] = made
    for old in [e.id for e in EXECS.values() if not e.running][: max(0, len(EXECS) - KEPT)]:
        del EXECS[old]
    _tell(engine, made, "exec_create")
    return answer({"Id": made.id}, 201)


def _size(payload: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns. Raises BadRequestError."""
    size = payload.get("ConsoleSize") or (0, 0)
    if len(size) != 2 or not all(0 <= n < 1 << 16 for n in size):
        raise BadRequestError(f"ConsoleSize {list(size)}: height and width of a terminal")
    return size[0], size[1]


def _tell(engine: Engine, found: Exec, action: str) -> None:
    more = {"execID": found.id} | ({"exitCode": str(found.exit_code)} if action == "exec_die" else {})
    message = (
        f"{action}: {found.command[0]} {' '.join(found.command[1:])}" if action in ("exec_create", "exec_start") else action
    )
    engine.containers.tell(found.record, message, more)


def _exec(request: web.Request) -> Exec:
    try:
        found = EXECS[request.match_info["id"]]
    except KeyError:
        raise NotFoundError(f"No such exec instance: {request.match_info['id']}") from None
    if found.record.id not in request.app[ENGINE].containers.records:
        raise NotFoundError(f"No such container: {found.record.id}")
    return found


async def inspect(request: web.Request) -> web.Response:
    """Describe an exec (ExecInspect)."""
    found = _exec(request)
    return answer(
        {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "Pid": (terminal.child_of(found.pid) or found.pid) if found.running else found.pid,
            "ContainerID": found.record.id,
            "OpenStdin": found.stdin,
            "OpenStdout": found.stdout,
            "OpenStderr": found.stderr,
            "CanRemove": bool(found.ended),
            "DetachKeys": found.keys,
            "ProcessConfig": {
                "tty": found.tty,
                "entrypoint": found.command[0],
                "arguments": found.command[1:],
                "user": found.user,
                "privileged": found.privileged,
            },
        }
    )


async def resize(request: web.Request) -> web.Response:
    """Set the size of an exec's terminal, now or for its start (ExecResize)."""
    found = _exec(request)
    found.size = terminal_size(request)
    if found.ended:
        raise NotFoundError(f"no such exec: {found.id} has ended")
    if found.running and found.tty:
        await _apply_size(found)
    return web.Response(status=200)


async def _apply_size(found: Exec) -> None:
    for _ in range(RESIZE_TRIES):
        inner = terminal.child_of(found.pid)
        if not found.running or (inner and terminal.resize(inner, *found.size)):
            return
        await asyncio.sleep(RESIZE_S)


async def start(request: web.Request) -> web.StreamResponse:
    """Run an exec, detached or with its streams on this connection (ExecStart)."""
    engine, found = request.app[ENGINE], _exec(request)
    payload = body(request)
    if size := _size(payload) if payload.get("ConsoleSize") else None:
        found.size = size
    if found.started:
        raise ConflictError(f"exec {found.id} has already run" if found.ended else f"exec {found.id} is already running")
    _runs(found.record, found.record.id)
    found.started, found.complaints = True, os.memfd_create("complaints")
    if payload.get("Detach"):
        try:
            child = _runner(engine, found)(stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        except AgentError:
            _end(engine, found, 126)
            raise
        _begin(engine, found, child)
        task = asyncio.create_task(_detached(engine, found, child))
        DETACHED.add(task)
        task.add_done_callback(DETACHED.discard)
        if message := await _known_failure(found, child, task):
            raise BadRequestError(message)
        return web.Response(status=200)
    # this request chooses the form of the stream, whether the command has a terminal or not
    raw = payload.get("Tty", False)
    client = Hijacked(request, MULTIPLEXED if not raw and since(request, 42) else RAW)

    async def send(stream: int, data: bytes) -> None:
        if found.stdout if stream == 1 else found.stderr:
            await client.send(data if raw else frame(stream, data))

    with contextlib.suppress(ConnectionError):
        try:
            run = _runner(engine, found)
            await (_with_terminal if found.tty else _with_pipes)(engine, found, run, client, send)
        except AgentError as error:  # too late for another status: the client reads it as output
            _end(engine, found, 126)
            await client.send(f"{error}\r\n".encode() if raw else frame(1, f"{error}\r\n".encode()))
    return client


RUNTIMES_OWN = (1, 126, 127, 255)
"""How runtimes end that could not run a command."""
MESSAGE_BYTES = 1 << 12
"""Bytes that are read of a runtime's messages."""
DETACHED: set[asyncio.Task[Any]] = set()
Run = Callable[..., ChildProcess]
Send = Callable[[int, bytes], Awaitable[None]]


def _runner(engine: Engine, found: Exec) -> Run:
    """Starts the exec's process; its streams are still to be given. Raises AgentError."""
    if found.cwd and not found.cwd.startswith("/"):
        raise AgentError("OCI runtime exec failed: exec failed: Cwd must be an absolute path: unknown")
    directory = engine.paths.bundle(found.record.id)
    identity = users.resolve(directory / "rootfs", found.user) if found.user else None
    options = runtime.ExecOptions(
        tty=found.tty,
        identity=identity,
        environment=(*(["TERM=xterm"] if found.tty else []), *found.environment),
        cwd=found.cwd,
        privileged=found.privileged,
        size=found.size,
    )
    return functools.partial(
        engine.runtime.exec, found.record.id, directory, found.command, options, complaints=found.complaints
    )


def _begin(engine: Engine, found: Exec, child: ChildProcess) -> None:
    found.running, found.pid = True, child.pid
    _tell(engine, found, "exec_start")


async def _known(found: Exec, child: ChildProcess) -> None:
    """Wait until the source of the output is known. If no command runs, it comes from a command that has ended, or from the
    runtime, which complains on the command's own streams before it writes to *complaints*: its end shows which. What was typed
    ahead is echoed by the terminal before the command runs, so both are waited for."""
    while not _runs_command(found):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTING_S):
                await child.wait()
                return


def _runs_command(found: Exec) -> bool:
    command = terminal.child_of(found.pid)
    return bool(command and start_time(command)) and not terminal.same_program(command, found.pid)


def _failed(found: Exec) -> str:
    """The message for a command that the runtime could not run; "" if it runs, or has run. The runtime writes the same in
    other words on the command's streams."""
    if found.complaints < 0:
        return ""
    message = os.pread(found.complaints, MESSAGE_BYTES, 0).decode(errors="replace")
    return runtime.exec_failure(message, found.command[0]) if message else ""


def _misplaced(found: Exec, seen: bytes) -> bytes:
    """The output of a command that crun mistook for its own error, as it does if the command ends before crun looks at the
    terminal; b"" if it is an error. An error comes twice: plain, and in red on the terminal, of which *seen* is the end, or
    after the plain one if crun read it like a command's output."""
    message = os.pread(found.complaints, MESSAGE_BYTES, 0) if found.complaints >= 0 else b""
    first, _, rest = message.partition(b"\n")
    red = re.search(rb"\x1b\[[0-9;]*m.*" + re.escape(first), rest + seen, re.DOTALL)
    if not message or (not first.endswith(b"\r") and (red or b'msg="' in first)):
        return b""
    os.ftruncate(found.complaints, 0)
    return re.sub(
        rb"(?<!\r)\n", b"", message
    )  # crun ends each piece that it reads with LF, which a terminal always precedes by CR


def _end(engine: Engine, found: Exec, code: int) -> None:
    """Note how the exec ended: *code*, or the status in the runtime's message if the command could not be run."""
    if found.complaints >= 0:
        os.lseek(found.complaints, 0, os.SEEK_SET)
        message = os.read(found.complaints, 1 << 16).decode(errors="replace")
        os.close(found.complaints)
        found.complaints = -1
        failed = code and message and (code in RUNTIMES_OWN or not found.tty)
        code = runtime.exec_status(message, found.command[0]) if failed else code
    # one that a signal ended has the status that a shell gives it
    found.exit_code = 128 - code if code < 0 else code
    found.running, found.ended = False, time.monotonic()
    _tell(engine, found, "exec_die")


async def _detached(engine: Engine, found: Exec, child: ChildProcess) -> str:
    """Wait for the end; why the command could not be run, or ""."""
    code = await child.wait()
    message = _failed(found) if code else ""
    _end(engine, found, code)
    return message


async def _known_failure(found: Exec, child: ChildProcess, end: asyncio.Task[str]) -> str:
    """Wait until a detached command runs, or until its *end*; why it could not be run, or ""."""
    await _known(found, child)
    return await asyncio.shield(end) if child.returncode is not None else ""


async def _with_pipes(engine: Engine, found: Exec, run: Run, client: Hijacked, send: Send) -> None:
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
    _begin(engine, found, child)

    async def forward(fd: int, stream: int) -> None:
        while data := await descriptors.read(fd, 1 << 15):
            await _known(found, child)
            if not _failed(found):
                await send(stream, data)

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
        await child.wait()
        if message := _failed(found):
            await send(1, f"{message}\r\n".encode())
    finally:
        await to_end(_settle(engine, found, child, feeder))
        for fd in (out, err, mine):
            if fd >= 0:
                os.close(fd)


def _start_on_terminal(found: Exec, run: Run) -> tuple[int, ChildProcess]:
    """Run the exec on a new pseudo-terminal; returns the master's descriptor and the process. Raises AgentError."""
    master, slave = pty.openpty()
    # the runtime makes the container's terminal itself; this one only carries bytes, unchanged
    attributes: list[Any] = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    attributes[0] &= ~termios.ICRNL
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    if found.size != (0, 0):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *found.size, 0, 0))
    try:
        child = run(stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return master, child


async def _feed_terminal(found: Exec, client: Hijacked, master: int, child: ChildProcess) -> bool:
    """Write the client's input to the terminal; true once the client types its detach keys."""
    keys = Keys(found.keys)
    while data := await client.reader.read(1 << 12):
        data, leaves = keys.passed(data)
        if found.stdin:
            try:
                await descriptors.write(master, data)
            except OSError:
                return False
        if leaves:
            return True
    # the end of the input does not end the terminal: the client reads on, until its connection ends
    await client.lost()
    child.send_signal(signal.SIGHUP)  # the terminal has hung up; the runtime passes it on
    return False


async def _show_terminal(found: Exec, send: Send, master: int, child: ChildProcess) -> None:
    """Send the terminal's output to the client, or the complaint of the runtime if it could not run the command."""
    seen = b""
    while data := await descriptors.read(master, 1 << 15):
        seen = (seen + data)[-MESSAGE_BYTES:]
        await _known(found, child)
        if not _failed(found):
            await send(1, data)
    if lost := _misplaced(found, seen):
        await send(1, lost)
    elif message := _failed(found):
        await send(1, f"{message}\r\n".encode())


async def _with_terminal(engine: Engine, found: Exec, run: Run, client: Hijacked, send: Send) -> None:
    master, child = _start_on_terminal(found, run)
    _begin(engine, found, child)
    feeder = asyncio.create_task(_feed_terminal(found, client, master, child))
    viewer = asyncio.create_task(_show_terminal(found, send, master, child))
    try:
        await asyncio.wait({feeder, viewer}, return_when=asyncio.FIRST_COMPLETED)
        if feeder.done() and feeder.result():
            _tell(engine, found, "exec_detach")
            task = asyncio.create_task(_left(engine, found, child, master, viewer))
            DETACHED.add(task)
            task.add_done_callback(DETACHED.discard)
            return
        await viewer
        await child.wait()
    except BaseException:
        viewer.cancel()
        await to_end(_settle(engine, found, child, feeder))
        os.close(master)
        raise
    await to_end(_settle(engine, found, child, feeder))
    os.close(master)


async def _left(engine: Engine, found: Exec, child: ChildProcess, master: int, viewer: asyncio.Task[None]) -> None:
    """Read and drop the output of a command that goes on without a client, so that it does not block."""
    viewer.cancel()
    await asyncio.gather(viewer, return_exceptions=True)
    try:
        while await descriptors.read(master, 1 << 15):
            pass
        await child.wait()
    finally:
        await to_end(_settle(engine, found, child, None))
        os.close(master)


async def _settle(engine: Engine, found: Exec, child: ChildProcess, feeder: asyncio.Task[Any] | None) -> None:
    if feeder:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
    child.kill()
    _end(engine, found, await child.wait())
