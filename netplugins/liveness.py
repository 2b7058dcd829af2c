"""Which neighbours answer: an ICMP echo to each, again and again, so that a dead one is known in two seconds.

The kernel of a node answers without its agent and the control plane. A neighbour that never answered is not judged: a
firewall may keep echoes from it. Each echo carries a number that only this process knows, so that nobody else can make a dead
node look alive.
Source: RFC 792, RFC 4443 §4.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterable

from netplugins.linux import uapi
from netplugins.linux.checksum import checksum

INTERVAL_S = 0.4
MISSED = 5
"""After how many echoes without a reply a neighbour is silent: two seconds, and of ten echoes three may be lost each way."""
LARGEST_REPLY = 256
_HEAD = struct.Struct("!BBHHH")
_REPLIES = (uapi.ICMP_ECHOREPLY, uapi.ICMPV6_ECHO_REPLY)


class NeighbourTable:
    """What is known of each neighbour, by address. Pure."""

    def __init__(self) -> None:
        self._missed: dict[str, int] = {}
        """Of those that have ever answered: how many echoes have had no reply since."""
        self._watched: frozenset[str] = frozenset()

    def watch(self, addresses: Iterable[str]) -> None:
        """Watch *addresses*, and no others, from now on."""
        self._watched = frozenset(addresses)
        self._missed = {a: n for a, n in self._missed.items() if a in self._watched}

    @property
    def watched(self) -> frozenset[str]:
        """The addresses of the neighbours."""
        return self._watched

    def missed_one(self) -> None:
        """The time for the last echo is over: it counts as one without a reply, until a reply comes."""
        for address in self._missed:
            self._missed[address] += 1

    def answered(self, address: str) -> None:
        """A reply of *address* came."""
        if address in self._watched:
            self._missed[address] = -1  # the time of this very echo is not over yet

    @property
    def silent(self) -> frozenset[str]:
        """Those that answered once, and do not any more."""
        return frozenset(a for a, missed in self._missed.items() if missed >= MISSED)


class LivenessMonitor:
    """Sends the echoes and calls *changed* when the neighbours that are silent are others than before."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._table = NeighbourTable()
        self._token = os.urandom(16)
        self._sockets: dict[int, socket.socket] = {}
        self._loop: asyncio.Task[None] | None = None
        self.silent: frozenset[str] = frozenset()
        """The addresses of neighbours that were there and do not answer any more."""

    def watch(self, addresses: Iterable[str]) -> None:
        """Watch these neighbours, and no others. Without the right to send echoes (CAP_NET_RAW) none is ever silent."""
        self._table.watch(addresses)
        self._look()
        if self._table.watched and self._loop is None:
            with contextlib.suppress(PermissionError):
                self._open()
                self._loop = asyncio.create_task(self._ask(), name="liveness of nodes")

    def _open(self) -> None:
        """Raises PermissionError."""
        for version, family, protocol in (
            (4, socket.AF_INET, socket.IPPROTO_ICMP),
            (6, socket.AF_INET6, socket.IPPROTO_ICMPV6),
        ):
            try:
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            except PermissionError:
                raise
            except OSError:  # a host without IPv6 has no neighbours there
                continue
            self._sockets[version] = sock
            asyncio.get_running_loop().add_reader(sock, self._read, sock, version)

    async def _ask(self) -> None:
        while True:
            for address in self._table.watched:
                self._send(address)
            # replies that came while this process was busy, or stopped, are read before the timer counts
            await asyncio.sleep(INTERVAL_S)
            self._table.missed_one()
            self._look()

    def _send(self, address: str) -> None:
        version = 6 if ":" in address else 4
        if sock := self._sockets.get(version):
            kind = uapi.ICMP_ECHO if version == 4 else uapi.ICMPV6_ECHO_REQUEST
            echo = _HEAD.pack(kind, 0, 0, os.getpid() & 0xFFFF, 1) + self._token
            if version == 4:  # of an ICMPv6 message the kernel fills it in
                echo = _HEAD.pack(kind, 0, checksum(echo), os.getpid() & 0xFFFF, 1) + self._token
            with contextlib.suppress(OSError):  # no route, or the queue is full: it counts as one without a reply
                sock.sendto(echo, (address, 0))

    def _read(self, sock: socket.socket, version: int) -> None:
        while True:
            try:
                data, sender = sock.recvfrom(LARGEST_REPLY)
            except BlockingIOError:
                break
            except OSError:  # what a router reported of an earlier echo
                continue
            body = data[(data[0] & 15) * 4 :] if version == 4 and data else data
            if body[:1] and body[0] in _REPLIES and body[_HEAD.size :] == self._token:
                self._table.answered(sender[0])
        self._look()

    def _look(self) -> None:
        if self.silent != (now := self._table.silent):
            self.silent = now
            self._changed()

    def close(self) -> None:
        """Ask nobody any more."""
        if self._loop:
            self._loop.cancel()
        for sock in self._sockets.values():
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()
