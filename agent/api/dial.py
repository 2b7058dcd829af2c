"""A connection to a port inside a container, for `pystack port-forward`: published or not, on any network mode."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from aiohttp import web

from agent.api.app_keys import ENGINE, number
from agent.api.hijack import Hijacked
from agent.errors import BadRequestError, ConflictError
from netplugins.linux import netns

routes = web.RouteTableDef()
CONNECT_S = 5


@routes.post("/pystack/containers/{name}/dial")
async def dial(request: web.Request) -> web.StreamResponse:
    """Bytes both ways between the client and `port` of the container's own loopback. Query: port."""
    engine = request.app[ENGINE]
    port = number(request, "port")
    if not 0 < port < 65536:
        raise BadRequestError(f"port {port} does not exist: 1 to 65535")
    record = engine.containers.find(request.match_info["name"])
    if not record.running or not record.process:
        raise ConflictError(f"container {record.name} is not running")
    await request.read()
    namespace = f"/proc/{record.process.pid}/ns/net"

    def connect() -> socket.socket:
        try:
            return socket.create_connection(("127.0.0.1", port), CONNECT_S)
        except ConnectionRefusedError:
            return socket.create_connection(("::1", port), CONNECT_S)

    try:
        inner = await asyncio.to_thread(netns.enter, namespace, connect)
    except OSError as error:
        raise ConflictError(f"nothing answers at port {port} in {record.name}: {error.strerror or error}") from error
    inner.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=inner)
    client = Hijacked(request, "application/octet-stream")

    async def inward() -> None:
        while data := await client.reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    pump = asyncio.create_task(inward())
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await client.send(data)
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        writer.close()
    return client
