"""The sockets at 127.0.0.11 in each container's namespace, served by one event loop.

A socket keeps the namespace in which it was created, so one process serves all containers. Questions for other names go to
the view's upstreams from the host's namespace: at most three, in order, four seconds each.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import Any

from netplugins.linux import netns
from netplugins.resolver import message
from netplugins.resolver.table import Names, View

ADDRESS = ("127.0.0.11", 53)
UPSTREAM_TIMEOUT_S = 4.0
PENDING_LIMIT = 1024
CACHED_QUESTIONS, VARIANTS = 1024, 16
LONGEST = 512
"""Bytes of a question whose answer is cached: enough for every real one, and a bound on the memory of one container."""
STREAMS, ASKED = 64, 256
"""TCP connections of one container, and its questions that wait for an upstream. More are refused, so that one container cannot
stop the DNS of others."""
IDLE_S = 10


def host_upstreams() -> tuple[str, ...]:
    """The nameservers of the host's resolv.conf(5)."""
    try:
        with Path("/etc/resolv.conf").open() as file:
            words = [line.split() for line in file]
    except OSError:
        return ()
    return tuple(w[1] for w in words if len(w) > 1 and w[0] == "nameserver")[:3]


COUNTS = ("answered", "malformed", "refused", "forwarded", "forwarded_failed", "forwarded_seconds")
"""What a resolver counts since it began: questions that it answered itself, did not understand, or had no room for; those that
upstreams were asked, how many of these had no answer, and how long all of them took."""


class AnswerCache:
    """Answers by the question without its ID: most questions repeat.

    Of an answer with several addresses, VARIANTS are kept, each in an order of its own, and sent in turn."""

    def __init__(self) -> None:
        self._answers: dict[bytes, list[bytes]] = {}
        self._about: tuple[object, object] = (None, None)
        self._turn = 0

    def __len__(self) -> int:
        return len(self._answers)

    def bind(self, names: Names, view: View) -> None:
        """Use the cache for answers from *names* and *view*; those from others are deleted."""
        if self._about[0] is not names or self._about[1] is not view:
            self._about = names, view
            self._answers.clear()

    def get(self, packet: bytes) -> bytes | None:
        """The answer to *packet*; None if it must be computed."""
        known = self._answers.get(packet[2:])
        if known is None:
            return None
        if len(known) == 1:
            return packet[:2] + known[0]
        if len(known) < VARIANTS:
            return None
        self._turn += 1
        return packet[:2] + known[self._turn % VARIANTS]

    def put(self, packet: bytes, answer: bytes) -> None:
        """Keep *answer*."""
        if len(packet) > LONGEST:
            return
        if len(self._answers) >= CACHED_QUESTIONS:  # every question differs: EDNS cookies, or an attack
            self._answers.clear()
        known = self._answers.setdefault(packet[2:], [])
        known.append(answer[2:])
        if len(known) == 1 and answer[7] > 1:
            known.append(answer[2:])  # a list of one is an answer without an order


class Listener:
    """The UDP and TCP socket of one container. Raises OSError if they cannot be bound."""

    def __init__(self, server: Resolver, view: View) -> None:
        self.server = server
        self.view = view
        self.udp, self.tcp = netns.enter(view.netns, _open)
        self._cache = AnswerCache()
        self._tcp_server: asyncio.Server | None = None
        self._streams = self._asked = 0
        loop = asyncio.get_running_loop()
        loop.add_reader(self.udp.fileno(), self._readable)

    async def start(self) -> None:
        """Begin to accept TCP connections; UDP is served from the beginning."""
        self._tcp_server = await asyncio.start_server(self._stream, sock=self.tcp)

    def close(self) -> None:
        """Close both sockets."""
        asyncio.get_running_loop().remove_reader(self.udp.fileno())
        self.udp.close()
        if self._tcp_server:
            self._tcp_server.close()

    def _readable(self) -> None:
        self._cache.bind(self.server.names, self.view)
        for _ in range(64):  # many at once, but other containers have their turn
            try:
                packet, peer = self.udp.recvfrom(4096)
            except (BlockingIOError, OSError):
                return
            if known := self._cache.get(packet):
                self.server.counts["answered"] += 1
                with contextlib.suppress(OSError):
                    self.udp.sendto(known, peer)
                continue
            try:
                question = message.parse(packet)
            except message.MalformedError as error:
                self.server.counts["malformed"] += 1
                if refusal := message.refusal(packet, error.code):
                    self._send(refusal, peer)
                continue
            reply = self.server.names.answer(
                packet, question, self.view.networks, ttl=self.server.ttl, tcp=False, links=self.view.links
            )
            if reply is not None:
                self.server.counts["answered"] += 1
                self._cache.put(packet, reply)
                self._send(reply, peer)
            elif self._asked >= ASKED:
                self.server.counts["refused"] += 1
                self._send(message.answer(packet, question, [], code=message.REFUSED), peer)
            else:
                self.server.spawn(self._forward(packet, question, peer))

    def _send(self, reply: bytes, peer: Any) -> None:
        with contextlib.suppress(OSError):
            self.udp.sendto(reply, peer)

    async def _forward(self, packet: bytes, question: message.Question, peer: Any) -> None:
        self._asked += 1
        try:
            self._send(await self.server.ask_upstream(packet, question, self.view, tcp=False), peer)
        finally:
            self._asked -= 1

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._streams >= STREAMS:
            writer.close()
            return
        self._streams += 1
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                async with asyncio.timeout(IDLE_S):
                    packet = await reader.readexactly(length)
                try:
                    question = message.parse(packet)
                except message.MalformedError as error:
                    if refusal := message.refusal(packet, error.code):
                        writer.write(struct.pack("!H", len(refusal)) + refusal)
                        async with asyncio.timeout(IDLE_S):
                            await writer.drain()
                    return
                reply = self.server.names.answer(
                    packet, question, self.view.networks, ttl=self.server.ttl, tcp=True, links=self.view.links
                )
                if reply is None:
                    reply = await self.server.ask_upstream(packet, question, self.view, tcp=True)
                else:
                    self.server.counts["answered"] += 1
                writer.write(struct.pack("!H", len(reply)) + reply)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()  # a client that reads nothing is disconnected
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass
        finally:
            self._streams -= 1
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()


def _open() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    udp.bind(ADDRESS)
    udp.setblocking(False)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(ADDRESS)
    tcp.listen(64)
    tcp.setblocking(False)
    return udp, tcp


class Resolver:
    """All containers' listeners over one table of names."""

    def __init__(self) -> None:
        self.names = Names({})
        self.ttl = 0
        self._listeners: dict[str, Listener] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """Questions that are being answered."""
        self.counts = dict.fromkeys(COUNTS, 0.0)

    def spawn(self, work: object) -> None:
        """Run the coroutine *work*, and keep it until it ends."""
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def update(self, views: dict[str, View], names: Names, ttl: int) -> dict[str, str]:
        """Serve exactly *views* over *names*. Returns those that failed: container → why."""
        self.names, self.ttl = names, ttl
        problems: dict[str, str] = {}
        for key in [k for k, listener in self._listeners.items() if views.get(k) != listener.view]:
            listener = self._listeners.pop(key)
            if key in views and views[key].netns == listener.view.netns:
                listener.view = views[key]  # another network or upstream, the same sockets
                self._listeners[key] = listener
            else:
                listener.close()
        for key, view in views.items():
            if key not in self._listeners:
                try:
                    listener = Listener(self, view)
                    await listener.start()
                    self._listeners[key] = listener
                except OSError as error:
                    problems[key] = f"DNS at 127.0.0.11 cannot listen: {error}"
        return problems

    async def ask_upstream(self, packet: bytes, question: message.Question, view: View, *, tcp: bool) -> bytes:
        """The answer of the view's upstreams to *packet*; SERVFAIL where none answers."""
        if len(self.tasks) > PENDING_LIMIT:
            self.counts["refused"] += 1
            return message.answer(packet, question, [], code=message.REFUSED, tcp=tcp)
        single_label = "." not in question.name
        if single_label and question.kind in (message.A, message.AAAA):
            # a name that may be of a container must not leak to the outside; Docker forwards it, and times out offline
            self.counts["answered"] += 1
            return message.answer(packet, question, [], code=message.NXDOMAIN, tcp=tcp)
        began = time.monotonic()
        try:
            reply = await self._ask_each(packet, question, view, tcp=tcp)
        finally:
            self.counts["forwarded"] += 1
            self.counts["forwarded_seconds"] += time.monotonic() - began
        if reply is not None:
            return reply
        self.counts["forwarded_failed"] += 1
        return message.answer(packet, question, [], code=message.SERVFAIL, tcp=tcp)

    async def _ask_each(self, packet: bytes, question: message.Question, view: View, *, tcp: bool) -> bytes | None:
        """The first answer that is one."""
        for server in (view.upstreams or host_upstreams())[:3]:
            try:
                async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                    reply = await _ask(server, packet, question, tcp=tcp)
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                continue
            if message.answers(reply, packet, question) and reply[3] & 0x0F not in (message.SERVFAIL, message.REFUSED):
                return reply
        return None


async def _ask(server: str, packet: bytes, question: message.Question, *, tcp: bool) -> bytes:
    loop = asyncio.get_running_loop()
    host, _, port = server.partition("#")
    address = (host, int(port or 53))
    if tcp:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(struct.pack("!H", len(packet)) + packet)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        await loop.sock_sendall(sock, packet)
        while True:
            reply = await loop.sock_recv(sock, 65535)
            if message.answers(reply, packet, question):  # any other packet is forged or late
                return reply
