"""Workers as an agent has them: forked by a process that has loaded their modules (`agent.trees.fork_server`).

The first worker starts that process. It ends a minute after the last worker: an agent at rest pays nothing for it, and what all
forks of one process share (addresses, the seed of hashes) does not last.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent import descriptors
from agent.cancellation import to_end
from agent.rootless import MARK

PROGRAMS = Path(__file__).parents[2]
LINE_BYTES = 256 << 20
CHUNK = 1 << 18
REST_S = 60.0
"""How long after its last job a fork server ends."""


def environment() -> dict[str, str]:
    """The whole environment of a worker: no locale, no path of ours, no secret."""
    return {"LC_ALL": "C.UTF-8", **({MARK: os.environ[MARK]} if MARK in os.environ else {})}


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `agent.trees.MODULE`, for the directory PROGRAMS."""
    return [sys.executable, "-E", "-s", "-m", f"agent.trees.{module}", *arguments]


class Worker:
    """A job *number* of *server*, over when *ended* is done. *near* are this side's ends of its standard input, output and
    error, -1 where there is none."""

    def __init__(self, server: ForkServer, number: int, ended: asyncio.Future[int], near: Sequence[int]) -> None:
        self._server, self._number, self._ended = server, number, ended
        self._input, self._output, self._errors = near
        self._before = b""

    async def write(self, data: bytes) -> None:
        """Write all of *data* to its input. Raises BrokenPipeError where it does not read any more."""
        await descriptors.write(self._input, data)

    def close_input(self) -> None:
        """Its input is at its end."""
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    async def read(self) -> bytes:
        """Some of its output, b"" at the end."""
        if self._before:
            data, self._before = self._before, b""
            return data
        return await descriptors.read(self._output, CHUNK)

    async def line(self) -> bytes:
        """A line of its output, without the newline. Raises ValueError for one of more than LINE_BYTES."""
        parts, size = [], 0
        while data := await self.read():
            head, newline, self._before = data.partition(b"\n")
            parts.append(head)
            size += len(head)
            if size > LINE_BYTES:
                raise ValueError("line too long")
            if newline:
                break
        return b"".join(parts)

    async def errors(self) -> bytes:
        """All of its standard error."""
        return await descriptors.read_all(self._errors)

    async def wait(self) -> int:
        """Its exit status, once it has one; the negative number of the signal that has ended it."""
        return await asyncio.shield(self._ended)

    async def end(self) -> None:
        """Kill it if it runs; nothing of it is left afterwards."""
        if not self._ended.done():
            await self._server.send({"job": self._number})
        await self.wait()
        self.close_input()
        for fd in (self._output, self._errors):
            if fd >= 0:
                os.close(fd)


class ForkServer:
    """The process that forks the workers of one event loop, as long as *reading* is not done."""

    def __init__(self) -> None:
        self._jobs: dict[int, asyncio.Future[int]] = {}
        self._numbers = itertools.count(1)
        self._rest: asyncio.TimerHandle | None = None
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with far:
            self._process = subprocess.Popen(
                command("fork_server", (str(far.fileno()),)),
                stdin=DEVNULL,
                stdout=DEVNULL,
                cwd=PROGRAMS,
                env=environment(),
                pass_fds=(far.fileno(),),
            )
        self.reading = asyncio.create_task(self._read(), name="fork server")

    async def start(self, module: str, arguments: Sequence[str], *, stdin: int, stdout: int, stderr: int | None) -> Worker:
        """The worker `agent.trees.MODULE`. *stdin*, *stdout* and *stderr* are as in `subprocess.Popen`."""
        if self._rest:
            self._rest.cancel()
            self._rest = None
        number, ended = next(self._numbers), asyncio.get_running_loop().create_future()
        self._jobs[number] = ended
        near, far, made = [-1, -1, -1], [stdin, stdout, 2 if stderr is None else stderr], []
        for at, asked in enumerate(far):
            if asked == PIPE:
                read, write = os.pipe2(os.O_CLOEXEC)
                near[at], far[at] = (write, read) if at == 0 else (read, write)
                with contextlib.suppress(OSError):  # more than this user may have
                    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, CHUNK)
                made.append(far[at])
            elif asked == DEVNULL:
                far[at] = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                made.append(far[at])
        worker = Worker(self, number, ended, near)
        try:
            await self.send({"job": number, "worker": module, "arguments": list(arguments)}, far)
        except BaseException:  # it was not sent
            self._over(number, -signal.SIGKILL)
            await worker.end()
            raise
        finally:
            for fd in made:
                os.close(fd)
        return worker

    async def send(self, order: dict[str, object], with_descriptors: Sequence[int] = ()) -> None:
        """Send *order* once there is room for it. Where the process is gone, so are its jobs."""
        data = json.dumps(order).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                try:
                    socket.send_fds(self._socket, [data], with_descriptors)
                    return
                except BlockingIOError:
                    await descriptors.wait_writable(self._socket.fileno())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(ConnectionResetError):
                while data := await loop.sock_recv(self._socket, 1 << 12):
                    ended = json.loads(data)
                    self._over(ended["job"], ended["status"])
        finally:
            self._leave(loop)
            self._socket.close()
            for number in list(self._jobs):
                self._over(number, -signal.SIGKILL)
            self._process.wait()  # it ends with the socket

    def _over(self, number: int, status: int) -> None:
        self._jobs.pop(number).set_result(status)
        if not self._jobs:
            self._rest = asyncio.get_running_loop().call_later(REST_S, self._retire)

    def _retire(self) -> None:
        self._leave(asyncio.get_running_loop())
        self._socket.shutdown(socket.SHUT_WR)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        if _servers.get(loop) is self:
            del _servers[loop]


_servers: dict[asyncio.AbstractEventLoop, ForkServer] = {}
"""Those of the loops that run: one, but in tests."""


@contextlib.asynccontextmanager
async def started(
    module: str, arguments: Sequence[str], *, stdin: int = DEVNULL, stdout: int = PIPE, stderr: int | None = None
) -> AsyncIterator[Worker]:
    """The worker `agent.trees.MODULE`, which does not outlive this."""
    loop = asyncio.get_running_loop()
    server = _servers.get(loop) or _servers.setdefault(loop, ForkServer())
    worker = await server.start(module, arguments, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        yield worker
    finally:
        await to_end(worker.end())
