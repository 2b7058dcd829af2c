"""Published ports on the host: each has a bound socket, which also serves the clients that the firewall does not translate.

A bound socket reserves the port against other programs at all times. It serves clients at 127.0.0.1 and ::1 (the kernel's
route_localnet would open loopback services to neighbours, GHSA-35vc-w93w-75c2) and IPv6 clients of an IPv4 container.
Connections of all others are translated in prerouting and never reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable

from netplugins.resolver.table import Forward

UDP_IDLE_S = 60.0


class _UdpClient(asyncio.DatagramProtocol):
    """The socket for one UDP client, which relays the container's replies to it."""

    def __init__(self, reply: Callable[[bytes], None]) -> None:
        self.reply = reply
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.DatagramProtocol."""
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Relay a reply."""
        self.reply(data)

    def error_received(self, exc: Exception) -> None:
        """Do nothing: the client notices a refused datagram by its own time-out, as on a direct path."""


class _Udp(asyncio.DatagramProtocol):
    """The listening socket of one UDP port."""

    def __init__(self, held: _ListeningPort) -> None:
        self.held = held
        self.transport: asyncio.DatagramTransport | None = None
        self.clients: dict[object, tuple[_UdpClient, asyncio.TimerHandle]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.DatagramProtocol."""
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Relay a datagram of a client."""
        task = asyncio.ensure_future(self._relay(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _relay(self, data: bytes, addr: object) -> None:
        loop = asyncio.get_running_loop()
        known = self.clients.pop(addr, None)
        if known is None:

            def reply(answer: bytes) -> None:
                if self.transport:
                    self.transport.sendto(answer, addr)  # type: ignore[arg-type]

            try:
                target = self.held.target()
            except OSError:
                return
            _, client = await loop.create_datagram_endpoint(lambda: _UdpClient(reply), remote_addr=target)
        else:
            client, timer = known
            timer.cancel()
        self.clients[addr] = client, loop.call_later(UDP_IDLE_S, self._expire, addr)
        if client.transport:
            client.transport.sendto(data)

    def _expire(self, addr: object) -> None:
        client, _ = self.clients.pop(addr)
        if client.transport:
            client.transport.close()

    def close(self) -> None:
        """Close the port and the sockets of its clients."""
        for client, timer in self.clients.values():
            timer.cancel()
            if client.transport:
                client.transport.close()
        if self.transport:
            self.transport.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()


Key = tuple[str, str, int]


class _ListeningPort:
    """One bound port; its *forward* may change while it is open."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.close: Callable[[], None] = lambda: None

    def target(self) -> tuple[str, int]:
        """One of the targets, by chance. Raises OSError if there is none."""
        if not self.forward.targets:
            raise OSError("no container serves this port now")
        return random.choice(self.forward.targets), self.forward.target_port


class Forwarder:
    """Keeps a socket bound for each published port. An update keeps sockets that stay, and their connections."""

    def __init__(self) -> None:
        self._open: dict[Key, _ListeningPort] = {}

    async def update(self, forwards: tuple[Forward, ...]) -> dict[str, str]:
        """Bind exactly the ports of *forwards*. Returns those that failed: "tcp 0.0.0.0:80" → why."""
        problems: dict[str, str] = {}
        wanted: dict[Key, Forward] = {(f.protocol, f.host, f.port): f for f in forwards}
        for key in self._open.keys() - wanted.keys():
            self._open.pop(key).close()
        for key, forward in wanted.items():
            if known := self._open.get(key):
                known.forward = forward
                continue
            held = _ListeningPort(forward)
            try:
                await self._start(held)
            except OSError as error:
                problems[f"{forward.protocol} {forward.host}:{forward.port}"] = error.strerror or str(error)
            else:
                self._open[key] = held
        return problems

    async def _start(self, held: _ListeningPort) -> None:
        sock = _bound(held.forward)
        if held.forward.protocol == "udp":
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_datagram_endpoint(lambda: _Udp(held), sock=sock)
            held.close = protocol.close
        else:
            server = await asyncio.start_server(lambda r, w: self._serve(held, r, w), sock=sock)
            held.close = server.close

    async def _serve(self, held: _ListeningPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                upstream = await asyncio.open_connection(*held.target())
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client sees a reset, as it would on a closed port
            return
        try:
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
        finally:
            for end in (writer, upstream[1]):
                with contextlib.suppress(OSError):
                    end.close()


def _bound(forward: Forward) -> socket.socket:
    family = socket.AF_INET6 if ":" in forward.host else socket.AF_INET
    kind = socket.SOCK_DGRAM if forward.protocol == "udp" else socket.SOCK_STREAM
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((forward.host, forward.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(512)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
