"""A node's Engine API through the server: bytes are passed on as they come, upgraded connections included."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from agent.contract.takeover import Taken, Written
from orchestrator.errors import UnreachableError
from orchestrator.transport.agent_client import AgentClient

HOP = {"connection", "host", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer"}
"""Headers of one connection alone (RFC 9110, section 7.6.1)."""
CHUNK = 1 << 16
"""Bytes."""


async def forward(request: web.Request, client: AgentClient, path: str) -> web.StreamResponse:
    """Send *request* on to the agent of *client* as *path*, and its answer back, for as long as the agent lives."""
    answering = asyncio.Event()
    try:
        async with client.alive():
            reader, writer = await asyncio.open_unix_connection(client.socket, limit=1 << 18)
            return await _forward(request, path, reader, writer, answering)
    except (OSError, UnreachableError) as error:
        if answering.is_set():
            if request.transport:
                request.transport.abort()  # its end would pass for that of the answer
            return Written()
        why = error if isinstance(error, UnreachableError) else f"the node's agent does not answer: {error}"
        return web.json_response({"message": str(why)}, status=502)


async def _forward(
    request: web.Request, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answering: asyncio.Event
) -> web.StreamResponse:
    """*answering* is set once the client has the first of the answer."""
    tasks: list[asyncio.Task[None]] = []
    try:
        sender = asyncio.create_task(_send(request, path, writer))
        tasks.append(sender)
        if request.headers.get("Upgrade"):
            await sender
            answering.set()
            client = Taken(request)
            tasks += [asyncio.create_task(_pass_on(client.reader, writer)), asyncio.create_task(_hang_up(client, writer))]
            while data := await reader.read(CHUNK):
                await client.send(data)
        else:
            await _send_back(request, reader, answering)
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            writer.close()
    return Written()


async def _send(request: web.Request, path: str, writer: asyncio.StreamWriter) -> None:
    """Send the head and the body of *request* to the agent."""
    upgrade = request.headers.get("Upgrade")
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    head = [f"{request.method} {path}{query} HTTP/1.1", "Host: node"]
    head += [f"{k}: {v}" for k, v in request.headers.items() if k.lower() not in HOP]
    head.append(f"Connection: {'Upgrade' if upgrade else 'close'}")
    if upgrade:
        head.append(f"Upgrade: {upgrade}")
    chunked = request.can_read_body and request.content_length is None
    if chunked:
        head.append("Transfer-Encoding: chunked")
    writer.write("\r\n".join([*head, "", ""]).encode())
    if request.can_read_body:
        async for data in request.content.iter_any():
            writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
            await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _send_back(request: web.Request, reader: asyncio.StreamReader, answering: asyncio.Event) -> None:
    """Send the agent's answer to the client, byte for byte."""
    transport = request.transport
    assert transport is not None
    while data := await reader.read(CHUNK):
        if transport.is_closing():
            return
        answering.set()
        transport.write(data)
        await request.protocol._drain_helper()


async def _hang_up(client: Taken, writer: asyncio.StreamWriter) -> None:
    """A client that goes away as a whole has more than ended its input: the agent hears of that too."""
    await client.lost.wait()
    writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes to the end, and then close that direction."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
