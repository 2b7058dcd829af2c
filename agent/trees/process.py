"""Starts the workers of this package from an event loop, feeds them, and reads their replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from agent.rootless import MARK

log = logging.getLogger(__name__)
PROGRAMS = Path(__file__).parents[2]
REPLY_BYTES = 256 << 20
STALL_S = 60.0
ENDING = 10
"""How many times that long a worker may take after its last byte: a disk may have much to write."""
Reply = dict[str, Any]


def environment() -> dict[str, str]:
    """The whole environment of a worker: no locale, no path of ours, no secret."""
    return {"LC_ALL": "C.UTF-8", **({MARK: os.environ[MARK]} if MARK in os.environ else {})}


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `agent.trees.MODULE`, for the directory PROGRAMS."""
    return [sys.executable, "-E", "-s", "-m", f"agent.trees.{module}", *arguments]


@contextlib.asynccontextmanager
async def started(
    module: str, arguments: Sequence[str], *, stdin: int = DEVNULL, stderr: int | None = None
) -> AsyncIterator[Process]:
    """The worker `agent.trees.MODULE`, which does not outlive this."""
    child = await asyncio.create_subprocess_exec(
        *command(module, arguments),
        stdin=stdin,
        stdout=PIPE,
        stderr=stderr,
        cwd=PROGRAMS,
        env=environment(),
        limit=REPLY_BYTES,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def fed(
    module: str,
    arguments: Sequence[str],
    source: AsyncIterable[bytes],
    *,
    stall_s: float = STALL_S,
    progress: Callable[[int], None] = lambda _: None,
) -> Reply:
    """The reply of a worker that reads *source* as its standard input; *progress* is called with numbers of bytes read.

    If no byte moves for *stall_s* seconds, from the source or into the worker, both are ended, and the reply has "error"."""
    async with started(module, arguments, stdin=PIPE) as child:
        assert child.stdin
        chunks = aiter(source)
        waiting = "no byte came"
        try:
            while True:
                waiting = "no byte came"
                async with asyncio.timeout(stall_s):
                    chunk = await anext(chunks, None)
                if chunk is None or child.stdin.is_closing():  # it has ended early: uvloop would raise RuntimeError
                    break
                waiting = "nothing could be written"
                child.stdin.write(chunk)
                async with asyncio.timeout(stall_s):
                    await child.stdin.drain()
                progress(len(chunk))
            child.stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker ended early; its reply has the reason
        except TimeoutError:
            return {"error": f"{waiting} for {stall_s:g} s", "status": 400}
        return await _reply(child, stall_s)


async def asked(module: str, arguments: Sequence[str], *, stall_s: float = STALL_S) -> Reply:
    """The reply of a worker."""
    async with started(module, arguments) as child:
        return await _reply(child, stall_s)


async def written(module: str, arguments: Sequence[str], file: int, *, stall_s: float = STALL_S) -> Reply:
    """The reply of a worker that writes to the open *file*; the reply is on its other output."""
    child = await asyncio.create_subprocess_exec(
        *command(module, arguments),
        stdin=DEVNULL,
        stdout=file,
        stderr=PIPE,
        cwd=PROGRAMS,
        env=environment(),
    )
    try:
        assert child.stderr
        async with asyncio.timeout(stall_s * ENDING):
            lines = (await child.stderr.read()).splitlines()
            await child.wait()
    except TimeoutError:
        return {"error": f"the worker process did not end for {stall_s * ENDING:g} s", "status": 500}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return parsed(lines[-1] if lines else b"")


async def _reply(child: Process, stall_s: float) -> Reply:
    assert child.stdout
    try:
        async with asyncio.timeout(stall_s * ENDING):
            line = await child.stdout.readline()
            await child.wait()
    except TimeoutError:
        return {"error": f"the worker process did not end for {stall_s * ENDING:g} s", "status": 500}
    except ValueError:
        return {"error": f"the worker process answered with more than {REPLY_BYTES} bytes", "status": 500}
    return parsed(line)


def parsed(line: bytes) -> Reply:
    """A reply of a worker's. Where a fault is ours, the log has the places that led to it."""
    if not line:
        return {"error": "the worker process was killed", "status": 500}
    reply: Reply = json.loads(line)
    if places := reply.get("trace"):
        log.error("a worker failed: %s: %s", reply["error"], " > ".join(places))
    return reply


async def output(module: str, arguments: Sequence[str], fail: Callable[[Reply], Exception]) -> AsyncIterator[bytes]:
    """The standard output of a worker, whose reply is on the other output. Raises the exception that *fail* makes of a reply
    with "error"."""
    async with started(module, arguments, stderr=PIPE) as child:
        assert child.stdout
        assert child.stderr
        while data := await child.stdout.read(1 << 18):
            yield data
        lines = (await child.stderr.read()).splitlines()
        await child.wait()
        reply = parsed(lines[-1] if lines else b"") if child.returncode else {}
    if reply:
        raise fail(reply)
