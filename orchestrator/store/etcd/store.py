"""EtcdStore: the Store on etcd, put together from the parts of this package."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import grpc

from agent.contract.manifest import EtcdCredentials
from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.address import Address
from orchestrator.store.etcd.client import Client, StatusError
from orchestrator.store.etcd.keyspace import FIRST, Keyspace, end_of
from orchestrator.store.etcd.leadership import Leadership, Silence, knows_nothing
from orchestrator.store.etcd.transactions import Transactions
from orchestrator.store.etcd.users import Users
from orchestrator.store.etcd.watch import Watcher
from orchestrator.store.interface import CompactedError, Compare, Entry, KeyChange, Op, Put, StoreError, TransactionResult

TERM = "\0term"
"""The key of the last term, in decimal digits."""
PAGE, PAGE_BYTES = 1000, 16 << 20
"""Keys of the first page of a list, and bytes of the later ones."""


class EtcdStore:
    """A Store. Open it with `await EtcdStore.open(address)`; only a store on which `lead` has returned may write."""

    def __init__(self, client: Client) -> None:
        self.address = client.address
        self.term = 0
        self._client = client
        self._keyspace = Keyspace(client.address.prefix)
        self._watcher = Watcher(client, self._keyspace)
        self.leadership = Leadership(client, self._keyspace, self._watcher)
        self._transactions = Transactions(client, self._keyspace, self.leadership.lost)
        self._users = Users(client, self._keyspace)

    @classmethod
    async def open(cls, address: Address) -> EtcdStore:
        """Connect and log in. Raises StoreError if etcd does not answer."""
        store = cls(Client(address))
        try:
            await store._client.log_in()
            await store.revision()
        except StoreError:
            await store.close()
            raise
        return store

    @property
    def lost(self) -> asyncio.Event:
        """Set when this server does not lead any more."""
        return self.leadership.lost

    async def lead(self, name: str, *, wait: bool = True, silence: Silence = knows_nothing) -> None:
        """Return when this server, called *name*, is the one that writes; waits for others that are, unless by *silence* they
        are gone. Raises StoreError; without *wait* also if another server leads, whose name it gives."""
        await self.leadership.acquire(name, wait=wait, silence=silence)
        await self._transactions.claim_fences()
        last = await self.get(TERM)
        # the time: a store that was restored from a backup must not begin again with terms that nodes have seen
        self.term = max(int(last.value) + 1 if last else 0, int(time.time() * 1000))
        await self.transact((), [Put(TERM, str(self.term).encode())])

    async def living_leader(self) -> str:
        """The name of the server that leads, "" if none does, or it is about to lose its lease. Raises StoreError."""
        return await self.leadership.living_leader()

    async def resign_as(self, name: str) -> None:
        """Let nobody wait for the lease of a server *name* that surely does not run any more. Raises StoreError."""
        await self.leadership.resign_as(name)

    async def revision(self) -> int:
        """See `Store.revision`."""
        answer = await self._client.call(rpc.RANGE, self._keyspace.range("\0", keys_only=True))
        return int(answer.header.revision)

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        answer = await self._client.call(rpc.RANGE, self._keyspace.range(key))
        return self._keyspace.entry(answer.kvs[0]) if answer.kvs else None

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """See `Store.scan`. Read in pages, all as of one revision."""
        out: list[Entry] = []
        start, end, limit = prefix or FIRST, end_of(prefix), PAGE
        while True:
            try:
                answer = await self._client.call(rpc.RANGE, self._keyspace.range(start, end, revision=at, limit=limit))
            except StatusError as error:
                if error.code == grpc.StatusCode.OUT_OF_RANGE and at < (oldest := await self._oldest()):
                    raise CompactedError(oldest) from None  # else *at* is a revision of the future
                if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and limit > 1:
                    limit = max(1, limit // 16)  # some values are much larger than those before
                    continue
                raise
            out += map(self._keyspace.entry, answer.kvs)
            if not answer.more:
                return out
            start, at = out[-1].key + "\0", at or int(answer.header.revision)
            # etcd counts the whole range for each page: the larger the pages may be, the better
            average = sum(len(kv.value) + len(kv.key) for kv in answer.kvs) // len(answer.kvs) + 100
            limit = max(PAGE, PAGE_BYTES // average)

    async def _oldest(self) -> int:
        """The first revision that is not compacted: etcd says it to a watch of an older one."""
        try:
            async for _ in self._watcher.watch("\0", FIRST, 0):
                break
        except CompactedError as error:
            return error.oldest
        return 1

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """See `Store.transact`. Raises FencedError once another server leads."""
        return await self._transactions.transact(compare, then)

    async def put_unfenced(self, key: str, value: bytes) -> None:
        """Write a key of this server's own, whether it leads or not. The write may happen twice. Raises StoreError."""
        await self._client.call(rpc.PUT, rpc.put_request(self._keyspace.encode(key), value))

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """See `Store.watch`."""
        async for changes in self._watcher.watch(prefix or FIRST, end_of(prefix), after):
            yield changes

    async def compact(self, before: int) -> None:
        """See `Store.compact`."""
        try:
            await self._client.call(rpc.COMPACT, rpc.compaction_request(before))
        except StatusError as error:
            if error.code != grpc.StatusCode.OUT_OF_RANGE:  # it is compacted already
                raise

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """See `Store.grant_read`."""
        return await self._users.grant_read(reader, prefix)

    async def revoke_read(self, reader: str) -> None:
        """See `Store.revoke_read`."""
        await self._users.revoke_read(reader)

    async def close(self) -> None:
        """See `Store.close`. Another server can lead at once."""
        await self.leadership.release()
        await self._client.close()
