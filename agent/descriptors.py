"""Waiting on file descriptors that stay ours.

uvloop's pipe transports close the descriptor under a file object that closes it again; between the two, another thread
can get the same number, and its descriptor is closed. So nothing here hands a descriptor over: its opener closes it, once.

Its pipes for child processes are sockets besides, which no program can open as /dev/stdout: what runs in containers gets pipes.
"""

from __future__ import annotations

import asyncio
import os


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def wait_readable(fd: int) -> None:
    """Return when *fd* can be read (or is at its end)."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def wait_writable(fd: int) -> None:
    """Return when something can be written to *fd*."""
    loop = asyncio.get_running_loop()
    room: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _wake, room)
    try:
        await room
    finally:
        loop.remove_writer(fd)


async def read(fd: int, limit: int) -> bytes:
    """At most *limit* bytes of a pipe or terminal, b"" at its end; a terminal's EIO is its end too."""
    os.set_blocking(fd, False)
    while True:
        try:
            return os.read(fd, limit)
        except BlockingIOError:
            await wait_readable(fd)
        except OSError:
            return b""


async def read_line(fd: int) -> bytes:
    """Up to and including the first newline."""
    line = b""
    while not line.endswith(b"\n") and (data := await read(fd, 4096)):
        line += data
    return line


async def read_all(fd: int) -> bytes:
    """All up to the end."""
    out = b""
    while data := await read(fd, 1 << 16):
        out += data
    return out


async def write(fd: int, data: bytes) -> None:
    """Write all of *data* to a pipe. Raises BrokenPipeError when its readers are gone."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await wait_writable(fd)
