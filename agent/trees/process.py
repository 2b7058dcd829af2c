"""Jobs for the workers of this package from an event loop: feeds them, and reads their replies."""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any

from agent.trees.workers import LINE_BYTES, Worker, started

log = logging.getLogger(__name__)
STALL_S = 60.0
ENDING = 10
"""How many times that long a worker may take after its last byte: a disk may have much to write."""
Reply = dict[str, Any]


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
        chunks = aiter(source)
        waiting = "no byte came"
        try:
            while True:
                waiting = "no byte came"
                async with asyncio.timeout(stall_s):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                waiting = "nothing could be written"
                async with asyncio.timeout(stall_s):
                    await child.write(chunk)
                progress(len(chunk))
            child.close_input()
        except BrokenPipeError:
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
    async with started(module, arguments, stdout=file, stderr=PIPE) as child:
        try:
            async with asyncio.timeout(stall_s * ENDING):
                lines = (await child.errors()).splitlines()
        except TimeoutError:
            return _endless(stall_s)
    return parsed(lines[-1] if lines else b"")


def _endless(stall_s: float) -> Reply:
    return {"error": f"the worker process did not end for {stall_s * ENDING:g} s", "status": 500}


async def _reply(child: Worker, stall_s: float) -> Reply:
    try:
        async with asyncio.timeout(stall_s * ENDING):
            line = await child.line()
            await child.wait()
    except TimeoutError:
        return _endless(stall_s)
    except ValueError:
        return {"error": f"the worker process answered with more than {LINE_BYTES} bytes", "status": 500}
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
        while data := await child.read():
            yield data
        lines = (await child.errors()).splitlines()
        reply = parsed(lines[-1] if lines else b"") if await child.wait() else {}
    if reply:
        raise fail(reply)
