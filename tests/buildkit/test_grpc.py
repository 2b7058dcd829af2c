"""Calls over one connection, and trees that cross it: only what differs is sent."""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.buildkit import filesync, messages
from agent.buildkit.grpc import CallError, Connection, Handler, Stream
from agent.errors import BadRequestError
from agent.settings import ImageLimits
from tests.images import tar_of

LIMITS = ImageLimits()


class End(asyncio.StreamReaderProtocol):
    """One end of a pair of sockets."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self.transport: asyncio.Transport
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def send(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self._room.wait()


@asynccontextmanager
async def connected(**handlers: Handler) -> AsyncIterator[Connection]:
    """The calling end; the other one answers by *handlers*."""
    loop = asyncio.get_running_loop()
    ends = []
    for sock in socket.socketpair():
        sock.setblocking(False)
        ends.append((await loop.create_connection(End, sock=sock))[1])
    caller = Connection(ends[0], client=True)
    other = Connection(ends[1], client=False, handlers={f"/{name}": handler for name, handler in handlers.items()})
    running = [asyncio.create_task(one.run()) for one in (caller, other)]
    yield caller
    await caller.close()
    await asyncio.wait(running, timeout=10)
    await other.close()
    await asyncio.gather(*running)


async def echo(stream: Stream) -> None:
    async for message in stream.messages(messages.Bytes):
        await stream.send(message)


async def test_messages_of_all_sizes_go_both_ways() -> None:
    async with connected(echo=echo) as connection:
        for size in (0, 1, 70_000, 9 << 20):
            answer = await connection.ask("/echo", messages.Bytes(data=b"x" * size), messages.Bytes)
            assert len(answer.data) == size


async def test_many_calls_at_once() -> None:
    async with connected(echo=echo) as connection:
        asked = [connection.ask("/echo", messages.Bytes(data=bytes([n]) * 50_000), messages.Bytes) for n in range(60)]
        assert [a.data[0] for a in await asyncio.gather(*asked)] == list(range(60))


async def test_errors_keep_their_words_and_their_kind() -> None:
    async def fail(stream: Stream) -> None:
        raise BadRequestError("that is 100 % wrong: ü")

    async with connected(fail=fail) as connection:
        with pytest.raises(CallError, match="that is 100 % wrong: ü") as caught:
            await connection.ask("/fail", messages.Empty(), messages.Empty)
        assert caught.value.grpc == 3
        with pytest.raises(CallError, match="unknown service or method /none"):
            await connection.ask("/none", messages.Empty(), messages.Empty)


async def test_a_call_that_is_given_up_ends_its_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(stream: Stream) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connected(work=work) as connection:
        stream = await connection.call("/work")
        await begun.wait()
        await stream.cancel()
        async with asyncio.timeout(10):
            await ended.wait()


# --- trees ---------------------------------------------------------------------------------------------------------------


async def crossed(archive: Path, before: dict[str, str]) -> tuple[dict[str, bytes], filesync.Receiver, int]:
    """What comes of the tree in *archive*: files, and bytes that were sent for them."""
    counted = 0

    def count(size: int) -> None:
        nonlocal counted
        counted += size

    async def send(stream: Stream) -> None:
        await filesync.send(stream, archive)

    async with connected(files=send) as connection:
        receiver = filesync.Receiver(await connection.call("/files"), before, LIMITS, count)
        await receiver.begin()
        data = b"".join([chunk async for chunk in receiver.tar()])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {m.name: (tar.extractfile(m) or io.BytesIO()).read() if m.isreg() else m.linkname.encode() for m in tar}
    return found, receiver, counted


async def test_a_tree_crosses_and_only_what_differs_crosses_again(tmp_path: Path) -> None:
    files: dict[str, bytes | str | None] = {f"d/{n:03}": bytes([n]) * (n * 977) for n in range(150)}
    files |= {"link": "d/001", "empty": b"", "big": b"b" * (20 << 20), "ü": b"u"}
    path = tmp_path / "tree.tar"
    path.write_bytes(tar_of(files))
    found, receiver, sent = await crossed(path, {})
    assert {k: v for k, v in found.items() if k != "d"} == {
        k: v.encode() if isinstance(v, str) else v for k, v in files.items()
    }
    assert sent == sum(len(v) for v in files.values() if isinstance(v, bytes))
    del files["d/007"]
    files["d/009"] = b"new"
    path.write_bytes(tar_of(files))
    found, again, sent = await crossed(path, receiver.marks)
    assert (set(found), again.gone, sent) == ({"d/009"}, ["d/007"], 3)


Told = Callable[[Stream], Awaitable[None]]


def telling(*packets: messages.Packet) -> Told:
    async def tell(stream: Stream) -> None:
        for packet in packets:
            await stream.send(packet)
        async for _ in stream.messages(messages.Packet):
            pass

    return tell


STAT, END = messages.Packet(stat=messages.Stat(path="a", mode=0o644, size=3)), messages.Packet()


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ((STAT, STAT, END), "lists a file twice"),
        ((STAT, messages.Packet(type=messages.DATA)), "before its list of files has ended"),
        ((STAT, END, messages.Packet(type=messages.DATA, id=5, data=b"x")), "what nobody asked for"),
        (
            (STAT, END, messages.Packet(type=messages.DATA, id=0, data=b"x"), messages.Packet(type=messages.DATA, id=0)),
            "shorter",
        ),
        ((messages.Packet(type=messages.ERR, data=b"no \x1b[1m disk"),), r"no \\x1b\[1m disk"),
        ((messages.Packet(stat=messages.Stat(path="a", size=-4)), END), "below zero"),
    ],
)
async def test_a_client_that_lies_is_refused(packets: tuple[messages.Packet, ...], why: str) -> None:
    async with connected(files=telling(*packets)) as connection:
        receiver = filesync.Receiver(await connection.call("/files"), {}, LIMITS, lambda _: None)
        with pytest.raises(BadRequestError, match=why):
            await taken(receiver)


async def taken(receiver: filesync.Receiver) -> None:
    await receiver.begin()
    async for _ in receiver.tar():
        pass
