"""Old copies of volumes that moved, on nodes that did not answer then: deleted when they do.

`leftovers/<node>/<volume>` is written in the transaction that ends the move.
"""

from __future__ import annotations

import asyncio
import logging

from orchestrator.errors import PystackError, RefusedError, UnreachableError
from orchestrator.server import store_keys
from orchestrator.server.cluster import Cluster
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import Delete, Put, StoreError

POLL_S = 2.0
log = logging.getLogger(__name__)


class VolumeLeftovers:
    """The old copies that are still to be deleted."""

    def __init__(self, state: ClusterState, cluster: Cluster) -> None:
        self._state, self._cluster = state, cluster
        self._known: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Delete what earlier servers left, and what is added. Never returns. Raises StoreError."""
        for entry in await self._state.store.scan(store_keys.LEFTOVERS):
            node, _, volume = entry.key.removeprefix(store_keys.LEFTOVERS).partition("/")
            self._known.add((node, volume))
        while True:
            for node, volume in sorted(self._known):
                if node in self._cluster.ready or node not in self._cluster.members:
                    await self._try(node, volume)
            await asyncio.sleep(POLL_S)

    async def _try(self, node: str, volume: str) -> None:
        try:
            async with self._state.lock(f"volume {volume}").hold("delete an old copy"):
                await self.clear(node, volume)
        except StoreError:
            raise
        except PystackError as error:
            log.info("the old copy of volume %s on %s stays for now: %s", volume, node, error)

    def put(self, node: str, volume: str) -> Put:
        """What is to be written for a copy that cannot be deleted now."""
        self._known.add((node, volume))
        return Put(store_keys.of_leftover(node, volume), b"{}")

    async def clear(self, node: str, volume: str) -> None:
        """Delete an old copy on *node*, if it has one; the lock of *volume* is held.
        Raises RefusedError, UnreachableError."""
        if (node, volume) not in self._known:
            return
        found = self._state.volumes.get(volume)
        # it is the volume itself by now, or its node has left and taken it along
        if (found is None or found.node != node) and node in self._cluster.members:
            await delete_copy(self._cluster, node, volume)
        await self._state.transact([Delete(store_keys.of_leftover(node, volume))])
        self._known.discard((node, volume))


async def delete_copy(cluster: Cluster, node: str, volume: str) -> None:
    """Delete what *node* has of *volume*. Raises RefusedError while something uses it there, UnreachableError."""
    member = cluster.members.get(node)
    if member is None or not member.ready:
        raise UnreachableError(f"node {node} does not answer")
    await member.client.call("DELETE", f"/pystack/volumes/{volume}/dump")
    try:
        await member.client.call("DELETE", f"/volumes/{volume}")
    except RefusedError as error:
        if error.status != 404:
            raise
