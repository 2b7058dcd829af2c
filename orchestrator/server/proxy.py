"""A node's Engine API through the server: bytes are passed on as they come, upgraded connections included."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from aiohttp import web

from agent.takeover import Taken, Written

HOP = {"connection", "host", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer"}


async def forward(request: web.Request, socket: Path, path: str) -> web.StreamResponse:
    """Send *request* on to the agent at *socket* as *path*, and its answer back."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 18)
    except OSError as error:
        return web.json_response({"message": f"the node's agent does not answer: {error}"}, status=502)
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
    transport = request.transport
    assert transport is not None

    async def send() -> None:
        writer.write("\r\n".join([*head, "", ""]).encode())
        if request.can_read_body:
            async for data in request.content.iter_any():
                writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
                await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def back() -> None:
        while data := await reader.read(1 << 16):
            if transport.is_closing():
                return
            transport.write(data)
            await request.protocol._drain_helper()

    tasks: list[asyncio.Task[None]] = []
    try:
        sender = asyncio.create_task(send())
        tasks.append(sender)
        if upgrade:
            await sender
            client = Taken(request)

            async def onward() -> None:
                while data := await client.reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()

            async def hang_up() -> None:
                await client.lost.wait()
                writer.close()

            tasks += [asyncio.create_task(onward()), asyncio.create_task(hang_up())]
            while data := await reader.read(1 << 16):
                await client.send(data)
        else:
            await back()
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            writer.close()
    return Written()
