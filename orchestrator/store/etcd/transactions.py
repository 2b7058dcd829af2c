"""Transactions that happen once and only while this server leads.

If the answer to a write is lost, the write may have happened or not. So every transaction also writes one of a few fences,
and compares it with its last revision: the next try either finds the fence that the first one wrote, or happens itself, and
then the first can no longer happen. A new leader writes all fences: what an earlier leader still has under way then fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import msgspec

from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.client import Client
from orchestrator.store.etcd.keyspace import Keyspace
from orchestrator.store.interface import Compare, Entry, FencedError, Op, Put, StoreError, TransactionResult, validate_ops

MAX_INFLIGHT = 8
"""Fences, and so transactions that can be under way at the same time."""
FENCE_PREFIX = "\0mark/"


class Fence(msgspec.Struct, frozen=True):
    """The key *name*, and the revision at which this server last wrote it, 0 before the first time."""

    name: str
    revision: int


class Transactions:
    """Writes to the keys of *keyspace*. *lost* is set when this server does not lead any more, here or by others."""

    def __init__(self, client: Client, keyspace: Keyspace, lost: asyncio.Event) -> None:
        self._client = client
        self._keyspace = keyspace
        self._lost = lost
        self._free: asyncio.Queue[Fence] = asyncio.Queue()

    async def claim_fences(self) -> None:
        """Write all fences. From then on, no transaction of an earlier leader happens. Raises StoreError."""
        while not self._free.empty():
            self._free.get_nowait()
        names = [f"{FENCE_PREFIX}{number}" for number in range(MAX_INFLIGHT)]
        for fence in await asyncio.gather(*map(self._claim, names)):
            self._free.put_nowait(fence)

    async def _claim(self, name: str) -> Fence:
        """The fence *name*, written by this server. Raises StoreError."""
        nonce = os.urandom(16)
        while True:
            found = (await self._client.call(rpc.RANGE, self._keyspace.range(name))).kvs
            entry = self._keyspace.entry(found[0]) if found else None
            if entry and entry.value == nonce:
                return Fence(name, entry.modified)
            await self._write(Fence(name, entry.modified if entry else 0), nonce, (), ())

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """See `Store.transact`. Raises FencedError, StoreError."""
        validate_ops(then)
        if self._lost.is_set():
            raise FencedError("this server does not lead any more: another one does, or etcd was away for too long")
        if not then:  # a read can be repeated
            return await self._holds(compare)
        fence = await self._free.get()
        try:
            fence, outcome = await self._once(fence, compare, then)
            return outcome
        except StoreError:
            # neither the outcome nor the fence is known now: the next leader claims all fences
            self._lost.set()
            raise
        finally:
            self._free.put_nowait(fence)

    async def _holds(self, compare: Sequence[Compare]) -> TransactionResult:
        answer = await self._client.call(rpc.TXN, rpc.txn_request(self._encoded(compare), ()))
        return TransactionResult(bool(answer.succeeded), int(answer.header.revision))

    async def _once(self, fence: Fence, compare: Sequence[Compare], then: Sequence[Op]) -> tuple[Fence, TransactionResult]:
        """The fence as it is now, and the outcome."""
        nonce = os.urandom(16)
        succeeded, revision, held = await self._write(fence, nonce, compare, then)
        if succeeded:
            return Fence(fence.name, revision), TransactionResult(True, revision)
        if held and held.value == nonce:  # an earlier try succeeded, and its answer was lost
            return Fence(fence.name, held.modified), TransactionResult(True, held.modified)
        if held is None or held.modified != fence.revision:
            self._lost.set()
            raise FencedError("another server writes to this store")
        return fence, TransactionResult(False, revision)

    async def _write(
        self, fence: Fence, nonce: bytes, compare: Sequence[Compare], then: Sequence[Op]
    ) -> tuple[bool, int, Entry | None]:
        """Whether the transaction happened in the try that was answered, the store's revision, and the fence if it did not."""
        encode = self._keyspace.encode
        success = [
            rpc.put_request(encode(op.key), op.value) if isinstance(op, Put) else rpc.delete_request(encode(op.key))
            for op in (*then, Put(fence.name, nonce))
        ]
        comparisons = [(encode(fence.name), fence.revision), *self._encoded(compare)]
        answer = await self._client.call(rpc.TXN, rpc.txn_request(comparisons, success, [self._keyspace.range(fence.name)]))
        held = None
        if not answer.succeeded and answer.responses[0].response_range.kvs:
            held = self._keyspace.entry(answer.responses[0].response_range.kvs[0])
        return bool(answer.succeeded), int(answer.header.revision), held

    def _encoded(self, compare: Sequence[Compare]) -> list[tuple[bytes, int]]:
        return [(self._keyspace.encode(c.key), c.modified) for c in compare]
