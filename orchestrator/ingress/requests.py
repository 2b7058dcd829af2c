"""Reads what proxies say of each request that they forwarded: to which task, how long it took, and how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Set
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from agent.contract.frames import FrameDecoder, FrameError
from agent.contract.timings import Histogram
from orchestrator.errors import PystackError
from orchestrator.ingress.model import NOBODY
from orchestrator.server.traffic import RequestListener
from orchestrator.transport.agent_client import AgentClient

AGAIN_S = 1.0
MARK = b'"upstream roundtrip"'
GONE = "context canceled"
"""The client went away before it had its answer: nobody's fault here."""
log = logging.getLogger(__name__)


class Forwarded(NamedTuple):
    """A request that went to *dial*: it *failed* if there was no answer, or a status from 500 on; its answer began after
    *seconds*. *status* is 0 without an answer; *host* is what the client asked for, "" where the proxy does not say it."""

    dial: str
    failed: bool
    seconds: float
    status: int = 0
    host: str = ""


class Asked(msgspec.Struct, frozen=True):
    """What of a request is in the line."""

    host: str = ""


class Line(msgspec.Struct):
    """What Caddy says of a request that it forwarded. Source: modules/caddyhttp/reverseproxy, "upstream roundtrip"."""

    upstream: str
    duration: float
    status: int = 0
    error: str = ""
    request: Asked = Asked()


def read_line(line: bytes) -> Forwarded | None:
    """What a line of a proxy's output says; None for one that is about something else."""
    if MARK not in line:
        return None
    try:
        found = msgspec.json.decode(line, type=Line)
    except msgspec.DecodeError:
        return None
    own = found.upstream.startswith("unix/") and not found.upstream.endswith(NOBODY)
    if GONE in found.error or own:  # such as a question about a client's rate
        return None
    failed = bool(found.error) or found.status >= 500
    return Forwarded(found.upstream, failed, found.duration, 0 if found.error else found.status, found.request.host)


class RequestCounts:
    """What became of requests, by hosts of rules: how many by status (0 without an answer), and how long they took."""

    def __init__(self) -> None:
        self.by_status: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}

    def add(self, host: str, status: int, seconds: float) -> None:
        """Count one."""
        self.by_status[host, status] += 1
        self.seconds.setdefault(host, Histogram()).add(seconds)


def rule_host(asked: str, hosts: Set[str]) -> str:
    """Which of *hosts* answers for *asked*, with its port if it has one; "" for none."""
    name = asked.lower().rpartition("]")[2].partition(":")[0]
    wildcard = f"*.{name.partition('.')[2]}"
    return name if name in hosts else wildcard if wildcard in hosts else ""


class Requests:
    """Follows the output of proxies while somebody observes: a source of the server's `traffic`. *push* gives the proxies a
    configuration by which they say something, *trigger* has them become silent again, *is_there* says whether there are any."""

    def __init__(self, push: Callable[[], Awaitable[None]], trigger: Callable[[], None], is_there: Callable[[], bool]) -> None:
        self._is_there = is_there
        self._unread: set[str] = set()
        self._push, self._trigger = push, trigger
        self.tasks: dict[str, dict[str, str]] = {}
        """Node of a proxy → where it forwards to → task."""
        self.hosts: Set[str] = frozenset()
        self.counts = RequestCounts()
        """Of all requests since the server began to lead, while *counting*."""
        self.counting = False
        self._listeners: list[RequestListener] = []
        self._readers: dict[str, tuple[str, asyncio.Task[None]]] = {}

    @property
    def wanted(self) -> bool:
        """Whether somebody observes, or all are counted."""
        return bool(self._listeners) or self.counting

    @property
    def blind(self) -> str:
        """Why requests are not seen now, or not all of them; "" if they are."""
        if not self._is_there():
            return "the cluster has no ingress"
        return f"those on {', '.join(sorted(self._unread))} are not seen" if self._unread else ""

    @asynccontextmanager
    async def observe(self, listener: RequestListener) -> AsyncIterator[None]:
        """Call *listener* for every request that a proxy forwards meanwhile."""
        self._listeners.append(listener)
        try:
            await self._push()
            yield
        finally:
            self._listeners.remove(listener)
            self.keep(self._readers if self.wanted else ())
            self._trigger()

    def follow(self, client: AgentClient, container: str) -> None:
        """Read the proxy *container* on the node of *client* from now on, if somebody observes, and no other there."""
        known = self._readers.get(client.node)
        if not self.wanted or (known and known[0] == container):
            return
        if known:
            known[1].cancel()
        reader = asyncio.create_task(self._read(client, container), name=f"requests on {client.node}")
        self._readers[client.node] = container, reader

    def keep(self, nodes: Collection[str]) -> None:
        """Read no more on other nodes than *nodes*."""
        for node in self._readers.keys() - set(nodes):
            self._readers.pop(node)[1].cancel()
            self._unread.discard(node)

    async def _read(self, client: AgentClient, container: str) -> None:
        while True:
            try:
                await self._follow(client, container)
            except (PystackError, FrameError) as error:
                self._unread.add(client.node)
                log.warning("requests on %s are not counted for a while: %s", client.node, error)
            await asyncio.sleep(AGAIN_S)

    async def _follow(self, client: AgentClient, container: str) -> None:
        frames = FrameDecoder()
        self._unread.discard(client.node)
        async for chunk in client.chunks(f"/containers/{container}/logs?stdout=1&follow=1&tail=0"):
            for _, text in frames.feed(chunk):
                found = read_line(text)
                if found and self.counting and not found.dial.endswith(NOBODY) and (host := rule_host(found.host, self.hosts)):
                    self.counts.add(host, found.status, found.seconds)
                if found and (task := self.tasks.get(client.node, {}).get(found.dial)):
                    for listener in self._listeners:
                        listener(task, found.failed, found.seconds)
