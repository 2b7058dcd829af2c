"""HTTP as the client reads and writes it: against what a server may send, and against a real one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.http import Connection, ProtocolError, Response


@contextlib.contextmanager
def answer(sent: bytes, *, head: bool = False) -> Iterator[tuple[Response, list[Connection]]]:
    """The reply of a server that sends that and closes."""
    mine, theirs = socket.socketpair()
    idle: list[Connection] = []
    connection = Connection(mine, idle)

    def give() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(sent)

    thread = threading.Thread(target=give)
    thread.start()
    try:
        yield Response(connection, head=head), idle
    finally:
        connection.close()
        thread.join()


def framed(parts: list[bytes], how: str) -> bytes:
    body = b"".join(parts)
    if how == "length":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    if how == "close":
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    chunks = b"".join(b"%X;x=1\r\n%b\r\n" % (len(p), p) for p in parts if p)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: 1\r\n\r\n"


@given(st.lists(st.binary(max_size=50)), st.sampled_from(["length", "chunked", "close"]), st.integers(1, 60))
def test_a_body_is_read_whole_however_it_is_framed_and_asked_for(parts: list[bytes], how: str, size: int) -> None:
    body = b"".join(parts)
    with answer(framed(parts, how)) as (reply, idle):
        assert reply.read() == body
        assert reply.read() == reply.read1(1) == reply.readline() == b""
        assert bool(idle) == (how != "close")
    with answer(framed(parts, how)) as (reply, _):
        pieces = [*iter(lambda: reply.read(size), b"")]
        assert b"".join(pieces) == body
        assert all(len(piece) == size for piece in pieces[:-1])
    with answer(framed(parts, how)) as (reply, _):
        lines = [*iter(reply.readline, b"")]
        assert b"".join(lines) == body
        assert [line.count(b"\n") for line in lines[:-1]] == [1] * (len(lines) - 1)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000,
        b"HTTP/1.1 200 " + b"a" * 99999,
    ],
)
def test_what_is_no_answer_is_said_to_be_none(sent: bytes) -> None:
    with pytest.raises(ProtocolError), answer(sent):
        pass


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_body_that_is_cut_off_is_no_whole_one(sent: bytes) -> None:
    for read in (Response.read, Response.readline):
        with answer(sent) as (reply, idle):
            with pytest.raises(ProtocolError):
                [*iter(functools.partial(read, reply), b"")]
            assert not idle


def test_answers_without_a_body_have_none() -> None:
    with answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n") as (reply, _):
        assert reply.status == 204
    with answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX-Name: a\r\n\r\n", head=True) as (reply, idle):
        assert (reply.read(), reply.getheader("x-name"), len(idle)) == (b"", "a", 1)


def test_a_head_that_would_be_two_is_refused() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs, pytest.raises(ValueError, match="a line for each"):
        Connection(mine, []).request("GET", "/a\r\nX: y", {}, None)


def test_a_connection_that_is_taken_over_keeps_every_byte_behind_the_head() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\nfirst bytes")
        assert Connection(mine).request("POST", "/attach", {}, b"{}").status == 101
        assert mine.recv(100) == b"first bytes"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """aiohttp's own: it answers what it was sent, and refuses what is large before it has read it."""
    path = str(tmp_path / "s")
    seen: list[object] = []

    async def echo(request: web.Request) -> web.StreamResponse:
        seen.append(request.transport)
        reply = web.StreamResponse(headers={"Connections": str(len(set(seen)))})
        await reply.prepare(request)
        async for data in request.content.iter_any():
            await reply.write(data)
        return reply

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"message": "too large"}, status=413)

    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/echo", echo)
        app.router.add_route("*", "/refuse", refuse)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield path
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def connected(path: str, idle: list[Connection]) -> Connection:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return Connection(sock, idle)


def test_a_real_server_gets_and_gives_bodies_over_one_connection(server: str) -> None:
    idle: list[Connection] = []
    connected(server, idle).request("POST", "/echo", {}, b"whole").read()
    for body in (b"whole", iter([b"in ", b"", b"pieces"]), None, iter([])):
        connection = idle.pop()
        assert connection.is_idle()
        reply = connection.request("POST", "/echo", {}, body)
        assert reply.read() in (b"whole", b"in pieces", b"")
        assert reply.getheader("Connections") == "1"
    idle.pop().close()


def test_a_refusal_that_comes_before_the_body_is_sent_is_read(server: str) -> None:
    with contextlib.closing(connected(server, [])) as connection:
        reply = connection.request("PUT", "/refuse", {}, iter([b"x" * (1 << 20)] * 64))
        assert (reply.status, reply.read()) == (413, b'{"message": "too large"}')
