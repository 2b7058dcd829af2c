"""Publishes a node's manifest in etcd, below the node's own prefix (read there by `agent/manifest_watcher.py`)."""

from __future__ import annotations

import msgspec

from agent.contract.manifest import PARTS, Manifest, ManifestHeader, digest_of, entry_key
from orchestrator.store.interface import Delete, Op, Put, Store, batches


def prefix_of(node: str) -> str:
    """The prefix of the keys of *node*'s manifest."""
    return f"manifests/{node}/"


class EtcdManifestPublisher:
    """Writes the manifest of *node* to *store*."""

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._prefix = prefix_of(node)
        self._there: dict[str, bytes] | None = None

    async def publish(self, manifest: Manifest) -> str:
        """Write the entries that differ, the head last; returns the digest of the manifest. Raises StoreError."""
        there = self._there
        if there is None:
            there = {e.key[len(self._prefix) :]: e.value for e in await self._store.scan(self._prefix)}
        self._there = None  # unknown until all of it is written
        entries = {f"{part}/{entry_key(part, e)}": msgspec.json.encode(e) for part in PARTS for e in getattr(manifest, part)}
        digest = digest_of(entries)
        bare = msgspec.structs.replace(manifest, **dict.fromkeys(PARTS, ()))
        wanted = {**entries, "head": msgspec.json.encode(ManifestHeader(manifest=bare, digest=digest))}
        operations: list[Op] = [Delete(self._prefix + k) for k in there if k not in wanted]
        operations += [Put(self._prefix + k, v) for k, v in wanted.items() if there.get(k) != v]
        for batch in batches(operations):
            await self._store.transact((), batch)
        self._there = wanted
        return digest

    async def clear(self) -> None:
        """Delete the manifest. Raises StoreError."""
        self._there = None
        for batch in batches([Delete(e.key) for e in await self._store.scan(self._prefix)]):
            await self._store.transact((), batch)
