"""What one container can take of the resolver that all containers of a node share."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netplugins.linux import netns
from netplugins.resolver import message
from netplugins.resolver.server import ADDRESS, ASKED, STREAMS, Resolver
from netplugins.resolver.table import Names, View

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def question(name: str, ident: int = 7) -> bytes:
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + message.encode_name(name) + struct.pack("!HH", message.A, 1)


@pytest.fixture
async def namespace(tmp_path: Path) -> AsyncIterator[Path]:
    """A namespace with a resolver in it, whose upstream never answers."""
    path = tmp_path / "ns"
    netns.create(path, lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    resolver = Resolver()
    upstream = "#".join(map(str, silent.getsockname()))
    view = View(netns=str(path), networks=("net",), upstreams=(upstream,))
    assert await resolver.update({"c": view}, Names({"net": {"web": ("10.0.0.9",)}}), 0) == {}
    yield path
    await resolver.update({}, Names({}), 0)
    for task in list(resolver.tasks):
        task.cancel()
    await asyncio.gather(*resolver.tasks, return_exceptions=True)
    silent.close()
    netns.delete(path)


async def connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    inner = netns.enter(path, lambda: socket.create_connection(ADDRESS, 5))
    inner.setblocking(False)
    return await asyncio.open_connection(sock=inner)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packet: bytes) -> bytes:
    writer.write(struct.pack("!H", len(packet)) + packet)
    async with asyncio.timeout(10):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)


async def test_connections_are_bounded_and_come_free_again(namespace: Path) -> None:
    held = [await connected(namespace) for _ in range(STREAMS)]
    for reader, writer in held:  # each is taken once it is answered
        assert (await ask(reader, writer, question("web")))[7] == 1
    reader, writer = await connected(namespace)
    async with asyncio.timeout(10):
        assert await reader.read() == b"", "one more than there may be"
    writer.close()
    for _, one in held:
        one.close()
        await one.wait_closed()
    for _ in range(100):  # the resolver hears of it in its own time
        reader, writer = await connected(namespace)
        try:
            reply = await ask(reader, writer, question("web"))
        except (asyncio.IncompleteReadError, ConnectionError):
            continue
        finally:
            writer.close()
        assert reply[7] == 1
        return
    raise AssertionError("no connection is taken any more")


async def test_questions_for_elsewhere_are_bounded(namespace: Path) -> None:
    """More than ASKED that nobody answers: the next is refused at once, and names of our own are still told."""
    udp = netns.enter(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.setblocking(False)
    udp.connect(ADDRESS)
    loop = asyncio.get_running_loop()
    with udp:
        for number in range(ASKED + 1):
            await loop.sock_sendall(udp, question("www.example.org", number))
            await asyncio.sleep(0)
        async with asyncio.timeout(3):  # an upstream is waited for longer
            reply = await loop.sock_recv(udp, 512)
            assert reply[3] & 0x0F == message.REFUSED
            await loop.sock_sendall(udp, question("web", 0x4242))
            while (reply := await loop.sock_recv(udp, 512))[:2] != b"\x42\x42":
                pass
        assert reply[7] == 1


async def test_rubbish_on_a_connection_ends_it_with_a_word(namespace: Path) -> None:
    reader, writer = await connected(namespace)
    assert (await ask(reader, writer, b"\0" * 12))[3] & 0x0F == message.FORMERR
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
