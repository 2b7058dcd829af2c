"""A node's Engine API through the server: bodies are streamed both ways, and upgraded connections passed on as bytes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agent.contract.takeover import Taken, Written
from orchestrator.errors import UnreachableError
from orchestrator.transport.agent_client import AgentClient

HOP = {"connection", "host", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer", "expect"}
"""Headers that concern one connection only (RFC 9110, section 7.6.1); the server answers `Expect` itself."""
AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp's client adds where they are missing: the agent gets those of the request and no others."""
CHUNK = 1 << 16
"""Bytes."""


async def forward(request: web.Request, client: AgentClient, path: str) -> web.StreamResponse:
    """Send *request* to the agent of *client* as *path*, and its answer back, as long as the agent lives.

    A node that does not answer is status 502. Where its answer breaks off, so does the client's connection."""
    begun = asyncio.Event()
    relay = _relay_upgrade if request.headers.get("Upgrade") else _relay
    try:
        async with client.alive():
            return await relay(request, path, client.socket, begun)
    except (OSError, aiohttp.ClientError, UnreachableError) as error:
        if begun.is_set():
            if request.transport:
                request.transport.abort()  # an orderly end would look like the end of the answer
            return Written()
        why = error if isinstance(error, UnreachableError) else f"the node's agent does not answer: {error}"
        return web.json_response({"message": str(why)}, status=502)


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """*headers* without those of one connection."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP)


async def _relay(request: web.Request, path: str, socket: Path, begun: asyncio.Event) -> web.StreamResponse:
    """One request and its answer; sets *begun* before the client gets the first of the answer.

    Each has a connection of its own: the agent may have closed one that was kept, and a POST cannot be repeated."""
    query = request.rel_url.raw_query_string
    url = URL(f"http://node{path}{f'?{query}' if query else ''}", encoded=True)
    session = aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=str(socket), force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, connect=10),
        headers=_passed_on(request.headers),
        skip_auto_headers=AUTOMATIC,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    body: bytes | aiohttp.StreamReader | None = request.content if request.can_read_body else None
    if body is None and request.body_exists:  # the guard has read it, to see what it asks for
        body = await request.read()
    async with session, session.request(request.method, url, data=body, allow_redirects=False) as reply:
        answer = web.StreamResponse(status=reply.status, reason=reply.reason, headers=_passed_on(reply.headers))
        begun.set()
        await answer.prepare(request)
        async for data in reply.content.iter_any():
            await answer.write(data)
        await answer.write_eof()
        return answer


async def _relay_upgrade(request: web.Request, path: str, socket: Path, begun: asyncio.Event) -> web.StreamResponse:
    """*request*, and then bytes both ways: by hand, since aiohttp's client gives no connection away.

    Sets *begun* before the client gets the first of the answer."""
    body = await request.read()
    query = request.rel_url.raw_query_string
    headers = _passed_on(request.headers)
    headers["Content-Length"] = str(len(body))
    head = [f"{request.method} {path}{f'?{query}' if query else ''} HTTP/1.1", "Host: node"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    head += ["Connection: Upgrade", f"Upgrade: {request.headers['Upgrade']}", "", ""]
    reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 18)
    tasks: list[asyncio.Task[None]] = []
    try:
        writer.write("\r\n".join(head).encode() + body)
        begun.set()
        client = Taken(request)
        tasks += [asyncio.create_task(_pass_on(client.reader, writer)), asyncio.create_task(_hang_up(client, writer))]
        while data := await reader.read(CHUNK):
            await client.send(data)
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            writer.close()
    return Written()


async def _hang_up(client: Taken, writer: asyncio.StreamWriter) -> None:
    """A client that goes away as a whole has more than ended its input: the agent gets that too."""
    await client.lost.wait()
    writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes to the end, and then close that direction."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
