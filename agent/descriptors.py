"""Waiting on file descriptors that stay ours.

uvloop's pipe transports close the descriptor under a file object that closes it again; between the two, another thread
can be given the same number, and loses it. So nothing here hands a descriptor over: who opened it closes it, once.
"""

from __future__ import annotations

import asyncio
import os


async def readable(fd: int) -> None:
    """Return when *fd* can be read (or is at its end)."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def read(fd: int, limit: int) -> bytes:
    """At most *limit* bytes of a pipe or terminal, b"" at its end; a terminal's EIO is its end too."""
    os.set_blocking(fd, False)
    while True:
        try:
            return os.read(fd, limit)
        except BlockingIOError:
            await readable(fd)
        except OSError:
            return b""


async def read_line(fd: int) -> bytes:
    """Up to and including the first newline."""
    line = b""
    while not line.endswith(b"\n") and (data := await read(fd, 4096)):
        line += data
    return line
