"""Nodes that dial the server: the links that they keep, and the way over one to the agent's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.contract.multiplex import Multiplexer

AWAY = "it has not dialled this server: see that its agent runs and reaches it (`journalctl -u pystack-agent` there)"


class Link:
    """The connection that the node with the ID *node* keeps, by the key with the hash *key*, from *source*. *ends* are the
    addresses of this host and of the node, each as that side sees it."""

    def __init__(self, node: str, key: str, source: str, ends: tuple[str, str], carrier: Multiplexer) -> None:
        self.node, self.key, self.source, self.ends, self.carrier = node, key, source, ends, carrier


class Links:
    """The links of this server, one a node: the newest."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._followers: dict[str, set[Callable[[], None]]] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def get(self, node: str) -> Link | None:
        """The link of the node with the ID *node*."""
        return self._links.get(node)

    def add(self, link: Link) -> None:
        """*link* is there; one that the node had before ends."""
        before = self._links.pop(link.node, None)
        self._links[link.node] = link
        if before:
            before.carrier.abort()
        self._notify(link.node)

    def discard(self, link: Link) -> None:
        """*link* has ended."""
        if self._links.get(link.node) is link:
            del self._links[link.node]
            self._notify(link.node)

    def drop(self, node: str) -> None:
        """End the link of the node with the ID *node*, if there is one."""
        if link := self._links.get(node):
            self.discard(link)
            link.carrier.abort()

    def follow(self, node: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Have *changed* called when the node's link begins or ends; returns what ends that."""
        followers = self._followers.setdefault(node, set())
        followers.add(changed)
        return lambda: followers.discard(changed)

    def _notify(self, node: str) -> None:
        for changed in list(self._followers.get(node, ())):
            changed()


class UplinkTunnel:
    """Forwards the agent's socket of a node that dials to *local*, over the link that the node has at the moment."""

    def __init__(self, node: str, links: Links, local: Path) -> None:
        self.local = local
        self.on_problem: Callable[[str], None] = lambda _: None
        """Called with the reason when there is no link, and with "" when there is one."""
        self._node, self._links = node, links
        self._stop: Callable[[], None] = lambda: None
        self._starting: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the node keeps a link: its agent runs."""
        return self._links.get(self._node) is not None

    @property
    def ends(self) -> tuple[str, str]:
        """The addresses of this host and of the node, each as that side sees it."""
        link = self._links.get(self._node)
        return link.ends if link else ("", "")

    def hurry(self) -> None:
        """Nothing: it is the node that dials."""

    def start(self) -> None:
        """Begin to forward."""
        self._stop = self._links.follow(self._node, self._changed)
        self._starting = asyncio.create_task(self._listen(), name=f"uplink {self._node}")
        self._changed()

    def _changed(self) -> None:
        self.on_problem("" if self.connected else AWAY)

    async def _listen(self) -> None:
        self.local.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._take, str(self.local), limit=1 << 18)
        finally:
            os.umask(before)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from agent.contract.multiplex import relay

        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            link = self._links.get(self._node)
            if link is None:
                raise ConnectionResetError
            await relay(link.carrier, await link.carrier.open(), reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._relays.discard(task)

    async def close(self) -> None:
        """Forward no more, and delete the local socket; the link stays."""
        self._stop()
        if self._starting:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._server:
            self._server.close()
        for task in self._relays:
            task.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.local.unlink(missing_ok=True)
