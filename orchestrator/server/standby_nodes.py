"""The nodes as a server reaches them that does not lead: connections of its own, made when somebody asks for a node."""

from __future__ import annotations

import asyncio
import re

import msgspec

from agent.contract.status import NodeStatus
from orchestrator.errors import PystackError, UnreachableError
from orchestrator.server.cluster import Cluster
from orchestrator.server.node_tunnel import make_tunnel
from orchestrator.server.statuses import Statuses
from orchestrator.transport.agent_client import AgentClient

CONNECT_S = 8.0
"""How long a node may take to let this server in."""
_READS = re.compile(r"(/v1\.\d+)?/(containers/[\w.-]+/(json|logs|stats|top)|exec/[\w.-]+/json|_ping|version|info)")
_GOES_IN = re.compile(r"(/v1\.\d+)?/(containers/[\w.-]+/exec|exec/[\w.-]+/(start|resize))")


def needs_no_leader(method: str, path: str) -> bool:
    """Whether a request to a node's Engine API concerns what its containers say and do, and changes nothing of the cluster."""
    return bool((_READS if method in ("GET", "HEAD") else _GOES_IN).fullmatch(path) and method in ("GET", "HEAD", "POST"))


class _Way:
    """The connection to one node."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        node = cluster.get(name).node
        folder = cluster.run / "standby"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._tunnel = None if node.is_servers_own or node.name == cluster.local else make_tunnel(node, folder, cluster.links)
        self.client = AgentClient(node.name, self._tunnel.local if self._tunnel else cluster.socket)
        self._problem = "no answer yet"
        self._changed = asyncio.Event()
        if self._tunnel:
            self._tunnel.on_problem = self._on_problem
            self._tunnel.start()

    def _on_problem(self, problem: str) -> None:
        self._problem = problem
        self._changed.set()

    async def opened(self) -> AgentClient:
        """Raises UnreachableError."""
        if self._tunnel and not self._tunnel.connected:
            try:
                async with asyncio.timeout(CONNECT_S):
                    while not self._tunnel.connected:
                        await self._changed.wait()
                        self._changed.clear()
            except TimeoutError:
                raise UnreachableError(f"node {self.client.node} does not answer: {self._problem}") from None
        return self.client

    async def close(self) -> None:
        await self.client.close()
        if self._tunnel:
            await self._tunnel.close()


class StandbyNodes:
    """The nodes of *cluster*, as this server last knew them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ways: dict[str, _Way] = {}

    async def client(self, name: str) -> AgentClient:
        """The agent of node *name*. Raises RefusedError (404), UnreachableError."""
        node = self._cluster.get(name).node.name
        if node not in self._ways:
            self._ways[node] = _Way(self._cluster, node)
        return await self._ways[node].opened()

    async def look(self, statuses: Statuses) -> None:
        """Ask each node what it runs, and have *statuses* know it. One that does not answer is silent."""
        await asyncio.gather(*(self._look_at(statuses, name) for name in list(self._cluster.members)))

    async def _look_at(self, statuses: Statuses, name: str) -> None:
        member = self._cluster.members[name]
        try:
            async with asyncio.timeout(CONNECT_S):
                client = await self.client(name)
                found = msgspec.convert(await client.call("GET", "/pystack/status"), NodeStatus)
        except (PystackError, TimeoutError) as error:
            member.synced.clear()
            member.problem = str(error) or f"no answer within {CONNECT_S:g} s"
            return
        for status in found.tasks:
            statuses.update(name, status)
        member.synced.set()

    async def close(self) -> None:
        """Disconnect."""
        for way in self._ways.values():
            await way.close()
