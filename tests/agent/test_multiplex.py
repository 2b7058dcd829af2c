"""Streams over one connection: a slow one holds up no other, each direction ends by itself, and silence is the end of all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.contract import multiplex
from agent.contract.multiplex import Channel, Multiplexer, relay


@asynccontextmanager
async def linked(accept: Callable[[Channel], Awaitable[None]]) -> AsyncIterator[tuple[Multiplexer, Multiplexer]]:
    """Both ends of a connection: the one that opens streams, and the one that answers them with *accept*."""
    one, other = socket.socketpair()
    asking = Multiplexer(*await asyncio.open_connection(sock=one))
    answering = Multiplexer(*await asyncio.open_connection(sock=other), accept)
    runs = [asyncio.create_task(m.run()) for m in (asking, answering)]
    try:
        yield asking, answering
    finally:
        asking.abort()
        await asyncio.gather(*runs)


async def echo(channel: Channel) -> None:
    while data := await channel.read():
        await channel.write(data)
    await channel.end()


async def everything(channel: Channel) -> bytes:
    found = bytearray()
    while data := await channel.read():
        found += data
    return bytes(found)


async def test_each_direction_ends_by_itself() -> None:
    """The answer is longer than every window, and begins when the question has ended."""

    async def answer(channel: Channel) -> None:
        digest = hashlib.sha256(await everything(channel)).digest()
        await channel.write(digest * 200_000)
        await channel.end()

    asked = os.urandom(5 << 20)
    async with linked(answer) as (asking, _):
        channel = await asking.open()
        await channel.write(asked)
        await channel.end()
        assert await everything(channel) == hashlib.sha256(asked).digest() * 200_000


async def test_a_slow_reader_holds_up_nobody_else() -> None:
    async def pour(channel: Channel) -> None:
        await channel.write(bytes(4 * multiplex.WINDOW))
        await channel.end()

    async with linked(pour) as (asking, _):
        slow = [await asking.open() for _ in range(40)]  # more than the connection's window has room for
        async with asyncio.timeout(20):
            assert len(await everything(await asking.open())) == 4 * multiplex.WINDOW
            for one in slow:
                assert len(await everything(one)) == 4 * multiplex.WINDOW


async def test_a_stream_that_is_broken_off_is_so_at_the_other_end() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def answer(channel: Channel) -> None:
        try:
            await everything(channel)
        except ConnectionResetError as error:
            ended.put_nowait(str(error))

    async with linked(answer) as (asking, _):
        channel = await asking.open()
        await channel.write(b"x")
        channel.reset()
        async with asyncio.timeout(5):
            assert "broken off" in await ended.get()
        other = await asking.open()
        await other.end()  # the connection lives on


async def test_the_end_of_the_connection_ends_all_streams() -> None:
    async with linked(echo) as (asking, answering):
        channel = await asking.open()
        answering.abort()
        with pytest.raises(ConnectionResetError):
            await everything(channel)
        await asking.lost.wait()
        with pytest.raises(ConnectionResetError):
            await asking.open()


async def test_a_side_that_says_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not close anything: its machine may be gone."""
    monkeypatch.setattr(multiplex, "BEAT_S", 0.02)
    one, other = socket.socketpair()
    asking = Multiplexer(*await asyncio.open_connection(sock=one))
    async with asyncio.timeout(5):
        assert "nothing came for" in await asking.run()
    other.close()


async def test_the_side_that_is_asked_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that opens streams itself is not answered, and loses its connection."""
    monkeypatch.setattr(multiplex, "BEAT_S", 0.02)
    one, other = socket.socketpair()
    asking = Multiplexer(*await asyncio.open_connection(sock=one))
    thief = Multiplexer(*await asyncio.open_connection(sock=other))  # both speak as those who ask
    runs = [asyncio.create_task(m.run()) for m in (asking, thief)]
    channel = await thief.open()
    await asking.lost.wait()
    with pytest.raises(ConnectionResetError):
        await everything(channel)
    await asyncio.gather(*runs)


async def test_what_a_socket_still_has_to_take_is_not_lost(tmp_path: Path) -> None:
    """A server that answers a lot, and is gone before its client has read it; a client that ends its input meanwhile."""
    many = os.urandom(3 << 20)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(many)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "far"))

    async def accept(channel: Channel) -> None:
        await relay(answering, channel, *await asyncio.open_unix_connection(str(tmp_path / "far")))

    async with linked(accept) as (asking, answering):

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await relay(asking, await asking.open(), reader, writer)

        near = await asyncio.start_unix_server(take, str(tmp_path / "near"))
        for _ in range(10):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "near"))
            found = bytearray(await reader.readexactly(100_000))
            await asyncio.sleep(0.05)
            writer.write_eof()
            found += await reader.read()
            assert bytes(found) == many
            writer.close()
        near.close()
    server.close()
