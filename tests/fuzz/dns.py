"""DNS packets of containers, and answers of upstreams, for the resolver as it runs: on its sockets, in a namespace of
its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import socket
import struct
import subprocess
from collections.abc import Iterable
from typing import cast

from netplugins.linux.uapi import CLONE_NEWNET
from netplugins.resolver import message
from netplugins.resolver.server import ADDRESS, Resolver
from netplugins.resolver.table import Names, View
from tests.fuzz import mutate
from tests.fuzz.area import HANG_S, Area, Run

UPSTREAM = ("127.0.0.1", 5300)
KINDS = (message.A, message.A, message.AAAA, message.PTR, message.ANY, message.SRV, message.TXT, 0, 65535)
ASKED = (
    "web",
    "WEB",
    "web.net",
    "tasks.web",
    "web",
    "many",
    "many.net",
    "l",
    "a.b.example",
    "9.0.0.10.in-addr.arpa",
    "x." * 120,
    "y" * 63,
    "",
)
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "net": {
        "web": ("10.0.0.9", "fd00::9"),
        "tasks.web": ("10.0.0.9",),
        "many": tuple(f"10.1.{i // 256}.{i % 256}" for i in range(600)),
    },
    "n" * 300: {"db": ("10.0.0.8",)},
}


def question(rng: random.Random, ident: int) -> bytes:
    name = rng.choice(ASKED)
    labels = b"".join(bytes([len(w)]) + w.encode() for w in name.split(".") if w) + b"\0"
    edns = rng.random() < 0.3
    packet = struct.pack("!6H", ident, rng.choice((0x0100, 0, 0x0120)), 1, 0, 0, edns) + labels
    packet += struct.pack("!HH", rng.choice(KINDS), rng.choice((1, 1, 1, 255, 3)))
    return packet + (b"\0" + struct.pack("!HHIH", message.OPT, rng.choice((0, 512, 1232, 65535)), 0, 0) if edns else b"")


GOOD = struct.pack("!6H", 0x7777, 0x0100, 1, 0, 0, 0) + b"\x03web\0" + struct.pack("!HH", message.A, 1)


class _Upstream(asyncio.DatagramProtocol):
    """Answers with what it was asked, spoiled; sometimes not at all. What it does depends on the question alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        rng = random.Random(data)
        if len(data) > 2 and rng.random() > 0.01:
            answer = data[:2] + bytes([data[2] | 0x80]) + data[3:]
            self.transport.sendto(answer if rng.random() < 0.5 else mutate.some(rng, answer), address)


class Packets(Area):
    name = "dns"
    share = 0.2

    def run(self, inputs: Iterable[int], run: Run) -> None:
        # this process has one thread, and ends with the area: the namespace is its own
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "a network namespace needs root")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        asyncio.run(self._all(inputs, run))

    async def _all(self, inputs: Iterable[int], run: Run) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(_Upstream, UPSTREAM)
        upstream = await asyncio.start_server(_stream, *UPSTREAM)
        resolver = Resolver()
        view = View(
            netns="/proc/self/ns/net", networks=tuple(NAMES), upstreams=("#".join(map(str, UPSTREAM)),), links={"l": "web"}
        )
        assert not await resolver.update({"c": view}, Names(NAMES), 0)
        now = -1

        def said(_: object, context: dict[str, object]) -> None:
            run.fault(now, f"the loop says: {context.get('message')} {context.get('exception')!r}")

        loop.set_exception_handler(said)
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(ADDRESS)
            for now in inputs:
                chosen = run.rng(now)
                packet = question(chosen, now & 0xFFFF)
                if chosen.random() < 0.7:
                    packet = mutate.some(chosen, packet)
                run.begin(now)
                if chosen.random() < 0.05:
                    refused = await self._tcp(run, now, chosen, packet)
                else:
                    refused = await self._udp(run, now, udp, packet)
                run.done(refused=refused)
                if now % 256 == 0 and not await self._alive():
                    run.fault(now, "it does not answer a good question any more")
        async with asyncio.timeout(HANG_S):
            while resolver.tasks:
                await asyncio.wait(resolver.tasks, timeout=0.1)
        if (more := len(os.listdir("/proc/self/fd")) - before) > 4:
            run.fault(now, f"{more} descriptors are left open")
        upstream.close()

    async def _udp(self, run: Run, index: int, udp: socket.socket, packet: bytes) -> bool:
        """Send it, let the resolver see it, and look at what has come: answers of this or of an earlier one."""
        try:
            udp.send(packet)
        except OSError:
            return True  # more than a datagram holds
        refused = False  # no answer yet: it was asked for elsewhere
        for _ in range(3):
            await asyncio.sleep(0)
        while True:
            try:
                reply = udp.recv(65535)
            except BlockingIOError:
                return refused
            if len(reply) < 12 or not reply[2] & 0x80:
                run.fault(index, f"an answer that is none: {reply[:40]!r}")
            refused = reply[3] & 0x0F in (message.FORMERR, message.NOTIMP, message.REFUSED)

    async def _tcp(self, run: Run, index: int, rng: random.Random, packet: bytes) -> bool:
        """One connection: a length that may lie, then its end; the resolver must end it, too."""
        length = rng.choice((len(packet), len(packet), 0, 1, len(packet) + 5, 65535))
        reader, writer = await asyncio.open_connection(*ADDRESS)
        try:
            async with asyncio.timeout(HANG_S):
                writer.write(struct.pack("!H", length) + packet)
                writer.write_eof()
                reply = await reader.read()
        except ConnectionError:
            return True
        except TimeoutError:
            run.fault(index, "a connection that its client ended stays")
            return True
        finally:
            writer.close()
        return len(reply) < 14 or reply[5] & 0x0F != 0

    async def _alive(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(ADDRESS)
            loop = asyncio.get_running_loop()
            for _ in range(3):
                try:
                    async with asyncio.timeout(3):
                        await loop.sock_sendall(udp, GOOD)
                        reply = await loop.sock_recv(udp, 512)
                        return reply[:2] == GOOD[:2] and reply[6:8] == b"\0\1"
                except TimeoutError:
                    continue
        return False


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        data = await reader.readexactly(length)
        rng = random.Random(data)
        if len(data) > 2:
            answer = mutate.some(rng, data[:2] + bytes([data[2] | 0x80]) + data[3:])[:65535]
            writer.write(struct.pack("!H", rng.choice((len(answer), len(answer), 0, 65535))) + answer)
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()
