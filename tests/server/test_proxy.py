"""A node's Engine API through the server: real HTTP on both sides, the agent's side written byte by byte where it matters."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from agent.contract.takeover import Taken, Written
from orchestrator.server import proxy
from orchestrator.transport.agent_client import AgentClient

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROXY = "http://server/v1/nodes/n1/engine"


@asynccontextmanager
async def listening(handler: Handler, socket: Path) -> AsyncIterator[None]:
    """An HTTP server that gives each request to *handler*."""
    server = web.Server(handler, handler_cancellation=True, access_log=None)  # type: ignore[arg-type]
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket)).start()
        yield
    finally:
        await runner.cleanup()


class Nodes:
    """An agent behind `proxy.forward`, and a client in front of it."""

    def __init__(self, folder: Path) -> None:
        self.agent_socket, self.server_socket = folder / "agent", folder / "server"
        self.agent = AgentClient("n1", self.agent_socket)
        self._stack = AsyncExitStack()

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path.split("/engine", 1)[1]
        return await proxy.forward(request, self.agent, path)  # type: ignore[arg-type]

    async def __aenter__(self) -> Nodes:
        await self._stack.enter_async_context(listening(self._forward, self.server_socket))
        connector = aiohttp.UnixConnector(path=str(self.server_socket))
        self.client = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def answers(self, handler: Handler) -> None:
        """The agent is an HTTP server of *handler*."""
        await self._stack.enter_async_context(listening(handler, self.agent_socket))

    async def sends(self, *pieces: bytes) -> None:
        """The agent answers whatever it is sent with *pieces*, and hangs up."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(serve, self.agent_socket)
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with Nodes(tmp_path) as made:
        yield made


async def _echo(request: web.Request) -> web.StreamResponse:
    """All that the agent was sent, as JSON."""
    body = await request.read()
    told = {"method": request.method, "path": request.raw_path, "body": body.decode(), "headers": dict(request.headers)}
    return web.json_response(told, status=201, headers={"X-Engine": "pystack"})


async def test_a_request_arrives_as_it_was_sent(nodes: Nodes) -> None:
    await nodes.answers(_echo)
    url = URL(f"{PROXY}/images/a%2Fb/json?all=1&filters=%7B%22a%22%3A%5B%5D%7D", encoded=True)
    headers = {"X-Registry-Auth": "e30=", "Content-Type": "text/x"}
    async with nodes.client.post(url, data=b"body", headers=headers, skip_auto_headers=("Accept",)) as reply:
        told = await reply.json()
        assert (reply.status, reply.headers["X-Engine"]) == (201, "pystack")
    assert (told["method"], told["body"]) == ("POST", "body")
    assert told["path"] == "/images/a%2Fb/json?all=1&filters=%7B%22a%22%3A%5B%5D%7D"
    assert told["headers"]["X-Registry-Auth"] == "e30="
    assert told["headers"]["Content-Type"] == "text/x"
    assert told["headers"]["Content-Length"] == "4"
    assert "Accept" not in told["headers"]


@pytest.mark.parametrize("chunked", [False, True], ids=["of known length", "in chunks"])
async def test_bodies_of_any_size_are_streamed_both_ways(nodes: Nodes, chunked: bool) -> None:
    async def mirror(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if request.content_length is not None:
            answer.content_length = request.content_length
        await answer.prepare(request)
        async for data in request.content.iter_any():
            await answer.write(data)
        return answer

    await nodes.answers(mirror)
    sent = bytes(range(256)) * (1 << 14)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(sent), 1 << 18):
            yield sent[at : at + (1 << 18)]

    async with nodes.client.put(f"{PROXY}/archive", data=pieces() if chunked else io.BytesIO(sent)) as reply:
        assert (reply.content_length is None) == chunked
        assert await reply.read() == sent


async def test_the_first_of_an_answer_comes_before_its_end(nodes: Nodes) -> None:
    go_on = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first\n")
        await go_on.wait()
        await answer.write(b"last\n")
        return answer

    await nodes.answers(events)
    async with nodes.client.get(f"{PROXY}/events") as reply:
        assert await reply.content.readline() == b"first\n"
        go_on.set()
        assert await reply.content.read() == b"last\n"


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        ("GET", 204, {}, b""),
        ("GET", 304, {"Etag": '"x"'}, b""),
        ("GET", 301, {"Location": "/v1.48/info"}, b"moved"),
        ("HEAD", 200, {"Content-Length": "7", "Docker-Content-Digest": "sha256:1"}, b""),
        ("GET", 200, {"Content-Encoding": "gzip"}, gzip.compress(b"text", mtime=0)),
        ("GET", 404, {"Content-Type": "application/json"}, b'{"message": "no such container"}'),
    ],
    ids=["no content", "not modified", "a redirect is for the client", "HEAD", "encoded bodies are left alone", "an error"],
)
async def test_answers_are_passed_on(nodes: Nodes, method: str, status: int, headers: dict[str, str], body: bytes) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=body or None)

    await nodes.answers(answer)
    async with nodes.client.request(method, f"{PROXY}/x", allow_redirects=False) as reply:
        assert reply.status == status
        assert {name: reply.headers[name] for name in headers} == headers
        assert await reply.read() == body


async def test_cookies_stay_with_their_client(nodes: Nodes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.headers.get("Cookie", "none"), headers={"Set-Cookie": "a=b"})

    await nodes.answers(answer)
    for _ in range(2):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(nodes.server_socket))) as session:
            assert await (await session.get(f"{PROXY}/x")).text() == "none"


async def test_an_answer_before_the_end_of_the_body_is_not_lost(nodes: Nodes) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "no such volume"}, status=404)

    await nodes.answers(refuse)
    async with nodes.client.put(f"{PROXY}/archive", data=io.BytesIO(bytes(8 << 20))) as reply:
        assert (reply.status, await reply.json()) == (404, {"message": "no such volume"})


@pytest.mark.parametrize(
    "head", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"], ids=["length", "chunks"]
)
async def test_an_answer_that_breaks_off_does_not_look_whole(nodes: Nodes, head: bytes) -> None:
    await nodes.sends(b"HTTP/1.1 200 OK\r\n", head)
    with pytest.raises(aiohttp.ClientError):
        async with nodes.client.get(f"{PROXY}/export") as reply:
            await reply.read()


async def test_an_agent_that_is_not_there_is_status_502(nodes: Nodes) -> None:
    async with nodes.client.get(f"{PROXY}/info") as reply:
        assert reply.status == 502
        assert (await reply.json())["message"].startswith("the node's agent does not answer: ")


async def test_an_agent_that_falls_silent_ends_what_waits_for_it(nodes: Nodes) -> None:
    called = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        called.set()
        await asyncio.Event().wait()
        raise AssertionError

    await nodes.answers(hang)
    waiting = asyncio.create_task(nodes.client.get(f"{PROXY}/info"))
    await called.wait()
    nodes.agent.give_up("its agent has said nothing")
    reply = await waiting
    assert (reply.status, await reply.json()) == (502, {"message": "node n1 does not answer: its agent has said nothing"})


async def test_a_client_that_goes_away_ends_the_work_of_the_agent(nodes: Nodes) -> None:
    called, ended = asyncio.Event(), asyncio.Event()

    async def work(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            await answer.write(b"step 1\n")
            called.set()
            await asyncio.Event().wait()
        finally:
            ended.set()
        return answer

    await nodes.answers(work)
    reply = await nodes.client.post(f"{PROXY}/build")
    await called.wait()
    reply.close()
    async with asyncio.timeout(60):
        await ended.wait()


async def test_an_upgraded_connection_carries_bytes_both_ways(nodes: Nodes) -> None:
    """As `exec -i`: the client ends its input first, and goes on reading."""

    async def upper(request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        client = Taken(request)
        await client.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await client.send(wanted["greeting"].encode())
        while data := await client.reader.read(1 << 16):
            await client.send(data.upper())
        await client.send(b"end of input\n")
        return Written()

    await nodes.answers(upper)
    reader, writer = await asyncio.open_unix_connection(nodes.server_socket)
    body = b'{"greeting": "hello\\n"}'
    head = f"POST /v1/nodes/n1/engine/exec/1/start HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode() + body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert await reader.readline() == b"hello\n"
    writer.write(b"word\n")
    assert await reader.readline() == b"WORD\n"
    writer.write_eof()
    assert await reader.read() == b"end of input\n"
    writer.close()
