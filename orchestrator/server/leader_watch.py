"""How a server that waits knows that the one that leads is gone: it follows the agent of that host, which is the same process.

The agent's stream of statuses says something every HEARTBEAT_S. It ends at once with its process, and falls silent with its
machine or its network. Alone that means nothing, as the way to it may be broken: the lease in etcd is the second witness
(`store/etcd/leadership.py`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from orchestrator.errors import RefusedError, UnreachableError
from orchestrator.placement.node import Node
from orchestrator.server.node_tunnel import make_tunnel
from orchestrator.store.interface import Store, StoreError
from orchestrator.transport.agent_client import AgentClient
from orchestrator.transport.uplink import Links

HEARTBEAT_S = 0.4
AGAIN_S = 0.2
"""How long after an end of the stream it is opened again."""
FRESH_S = 5.0
"""How old the last word of a leader may be that its successor goes by: as old as a takeover takes."""


class LeaderWatch:
    """*run* is the folder of the forwarded socket."""

    def __init__(self, store: Store, run: Path) -> None:
        self._store = store
        self._run = run / "leader"
        self._name = ""
        self._last_word_at: float | None = None
        self._ended = False
        self._following: asyncio.Task[None] | None = None

    def silence_s(self, name: str) -> float:
        """For how many seconds the server *name*, which leads, has sent nothing; inf where its stream ended, 0 where it has not
        sent anything yet. The first question begins to follow it."""
        if name != self._name:
            self._name, self._last_word_at, self._ended = name, None, False
            if self._following:
                self._following.cancel()
            self._following = asyncio.create_task(self._follow(name), name=f"follow the leader {name}")
        if self._last_word_at is None:
            return 0.0
        return math.inf if self._ended else asyncio.get_running_loop().time() - self._last_word_at

    @property
    def last_word(self) -> Mapping[str, float]:
        """When the server that led last sent something, by the loop's clock in seconds; empty if that is too long ago to say
        anything of its machine now."""
        fresh = self._last_word_at is not None and asyncio.get_running_loop().time() - self._last_word_at <= FRESH_S
        return {self._name: self._last_word_at} if fresh and self._last_word_at is not None else {}

    async def _follow(self, name: str) -> None:
        """Never returns, unless that host cannot be reached by others."""
        try:
            entry = await self._store.get(f"nodes/{name}")
        except StoreError:
            return
        node = msgspec.json.decode(entry.value, type=Node) if entry else None
        if node is None or not node.target:
            return
        self._run.mkdir(mode=0o700, exist_ok=True)
        tunnel = make_tunnel(node, self._run, Links())  # a server is reached over SSH
        tunnel.start()
        try:
            while True:
                await self._listen(AgentClient(name, tunnel.local))
                await asyncio.sleep(AGAIN_S)
                tunnel.hurry()
        finally:
            await tunnel.close()

    async def _listen(self, client: AgentClient) -> None:
        """Until the stream ends."""
        spoke = False
        try:
            async for _ in client.chunks(f"/pystack/status/stream?heartbeat={HEARTBEAT_S}"):
                self._last_word_at = asyncio.get_running_loop().time()
                self._ended, spoke = False, True
        except (UnreachableError, RefusedError):
            pass
        finally:
            await client.close()
        self._ended = self._ended or spoke

    async def close(self) -> None:
        """Follow nobody any more."""
        if self._following:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
