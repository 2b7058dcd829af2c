"""The store of the simulated cluster, with the semantics of etcd, and the election of the server that may write it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

from agent.contract.manifest import EtcdCredentials
from orchestrator.store.interface import (
    Compare,
    Entry,
    KeyChange,
    Op,
    Put,
    StoreError,
    TransactionResult,
    validate_ops,
)

LEASE_S, RENEW_S, SAFETY_S = 4.0, 0.5, 0.5
SUCCEED_S = 1.5
"""A leader that has not renewed its lease for so long, and is not heard by its successor, is not waited for."""


class Backing:
    """What all servers see. *term* counts the leaders."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 1
        self.term = 0
        self.lease_ends = 0.0
        self.leader = ""
        self.transactions, self.writes, self.written = 0, 0, 0
        """Transactions that wrote, the keys that they put or deleted, and the bytes of what they put."""


class TermStore:
    """A Store as the leader of *term* has it. *reaches* says whether its server reaches the store."""

    def __init__(self, backing: Backing, term: int, rng: random.Random, server: str, cut: set[str]) -> None:
        self._backing, self._term, self._rng = backing, term, rng
        self._server, self._cut = server, cut
        self.lost = asyncio.Event()

    @property
    def term(self) -> int:
        """See `Store.term`."""
        return self._term

    async def _hop(self) -> None:
        await asyncio.sleep(self._rng.expovariate(200))
        if self._server in self._cut:
            await asyncio.sleep(LEASE_S)
            self.lost.set()
            raise StoreError("the store does not answer")

    async def revision(self) -> int:
        await self._hop()
        return self._backing.revision

    async def get(self, key: str) -> Entry | None:
        await self._hop()
        return self._backing.entries.get(key)

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        del at
        await self._hop()
        return [e for k, e in sorted(self._backing.entries.items()) if k.startswith(prefix)]

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        validate_ops(then)
        await self._hop()
        if self._backing.term != self._term or self.lost.is_set():
            self.lost.set()
            raise StoreError("another server leads")
        entries = self._backing.entries
        if any((entries[c.key].modified if c.key in entries else 0) != c.modified for c in compare):
            return TransactionResult(False, self._backing.revision)
        if then:
            self._backing.revision += 1
            self._backing.transactions += 1
            for op in then:
                self._apply(op)
        done = TransactionResult(True, self._backing.revision)
        if self._rng.random() < 0.002:  # it happened, and its answer is lost: the production client finds its own mark then
            await asyncio.sleep(1.0)
        await asyncio.sleep(self._rng.expovariate(200))
        return done

    def _apply(self, op: Op) -> None:
        entries, revision = self._backing.entries, self._backing.revision
        self._backing.writes += 1
        if isinstance(op, Put):
            self._backing.written += len(op.value)
            old = entries.get(op.key)
            entries[op.key] = Entry(op.key, op.value, old.created if old else revision, revision, old.version + 1 if old else 1)
        else:
            entries.pop(op.key, None)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        raise NotImplementedError
        yield ()

    async def compact(self, before: int) -> None:
        del before

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        raise StoreError("no users")

    async def revoke_read(self, reader: str) -> None:
        del reader

    async def close(self) -> None:
        if self._backing.term == self._term:
            self._backing.lease_ends = 0.0

    async def keep(self) -> None:
        """Renew the lease until it is lost."""
        loop = asyncio.get_running_loop()
        good_until = loop.time() + LEASE_S - SAFETY_S
        while loop.time() < good_until:
            if self._server not in self._cut:
                if self._backing.term != self._term:
                    break
                self._backing.lease_ends = loop.time() + LEASE_S
                good_until = loop.time() + LEASE_S - SAFETY_S
            await asyncio.sleep(RENEW_S)
        self.lost.set()
