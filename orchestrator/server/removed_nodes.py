"""Nodes that were removed while they were silent: each is notified when it is back.

A dead node that boots would start what it ran, with the addresses that others may have by then. The store has such nodes under
`removed/<id>` until they know it, or until they were away for so long that nobody waits for them any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.contract.manifest import Farewell, Manifest
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError, UnreachableError
from orchestrator.placement.node import Node
from orchestrator.server import store_keys
from orchestrator.server.node_tunnel import make_tunnel
from orchestrator.store.interface import Delete, Put, Store, StoreError
from orchestrator.transport.agent_client import AgentClient
from orchestrator.transport.uplink import Links

ASK_S = 2.0
"""How often a removed node is tried: less than a task waits after a boot before it starts unasked."""
FORGET_S = 30 * 86_400.0
"""After how long a removed node that never came back is forgotten."""
log = logging.getLogger(__name__)


class RemovedNode(WireStruct, frozen=True, kw_only=True):
    """A node that does not know yet that it was removed; *removed_at* is in seconds since 1970."""

    node: Node
    removed_at: float


class RemovedNodes:
    """Tells removed nodes that they are none. *run* is the folder of forwarded sockets; *links* gives those of nodes that
    dial."""

    def __init__(self, store: Store, run: Path, links: Callable[[], Links]) -> None:
        self.waiting: set[str] = set()
        """The IDs of those that do not know it yet."""
        self._store = store
        self._links = links
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Go on with those of the store. Raises StoreError."""
        for entry in await self._store.scan(store_keys.REMOVED_NODES):
            self.keep_notifying(msgspec.json.decode(entry.value, type=RemovedNode))

    def keep_notifying(self, removed: RemovedNode) -> None:
        """Tell *removed*, whose key is in the store, for as long as it takes."""
        self.waiting.add(removed.node.id)
        task = asyncio.create_task(self._keep_notifying(removed), name=f"removed node {removed.node.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_notifying(self, removed: RemovedNode) -> None:
        node = removed.node
        tunnel = make_tunnel(node, self._run, self._links())
        client = AgentClient(node.name, tunnel.local)
        tunnel.start()
        try:
            while time.time() - removed.removed_at < FORGET_S:
                if await notify(client, node):
                    break
                await asyncio.sleep(ASK_S)
            await self.forget(node)
        finally:
            await client.close()
            await tunnel.close()

    async def forget(self, node: Node) -> None:
        """*node* was notified, or is waited for no more."""
        self.waiting.discard(node.id)
        self._links().drop(node.id)
        try:
            await self._store.transact((), [Delete(store_keys.of_removed_node(node.id))])
        except StoreError as error:  # the next server that leads tries again
            log.warning("node %s: %s", node.name, error)

    async def close(self) -> None:
        """Stop notifying; the store keeps the nodes that are left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def tombstone(node: Node) -> tuple[RemovedNode, Put]:
    """*node* as one that is removed now, and the operation that writes it."""
    removed = RemovedNode(node=node, removed_at=time.time())
    return removed, Put(store_keys.of_removed_node(node.id), msgspec.json.encode(removed))


async def notify(client: AgentClient, node: Node) -> bool:
    """Notify *node* that it left the cluster. Returns whether that is done."""
    try:
        await client.call("POST", "/pystack/leave", data=msgspec.json.encode(Farewell(member=node.id)))
    except UnreachableError:
        return False
    except RefusedError as error:  # it knows already, is another member by now, or is too old for this request
        if error.status == 404:
            return await _empty_old_agent(client)
        log.info("node %s, which was removed, answers: %s", node.name, error)
    else:
        log.warning("node %s knows that it was removed", node.name)
    return True


async def _empty_old_agent(client: AgentClient) -> bool:
    try:
        await client.deliver(Manifest())
    except (UnreachableError, RefusedError):
        return False
    return True
