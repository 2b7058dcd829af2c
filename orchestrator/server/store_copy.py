"""A copy of the store in the memory of a server that waits: what it answers from while the store has no quorum."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from agent.contract.manifest import EtcdCredentials
from orchestrator.store.interface import (
    Compare,
    Entry,
    KeyChange,
    Op,
    Store,
    StoreError,
    TransactionResult,
)

CONFIRM_S = 2.0
"""How often it is asked whether the copy is the newest."""
_REFUSAL = "the store does not answer, and this is a copy of it: nothing can be changed"


class StoreCopy:
    """A Store that can only be read. `follow` keeps it up to date."""

    term = 0

    def __init__(self) -> None:
        self.as_of: float | None = None
        """When the copy was known to be the newest, in monotonic seconds; None if it never was."""
        self._entries: dict[str, Entry] = {}
        self._revision = 0

    async def follow(self, store: Store) -> None:
        """Copy *store*, and each change of it. Never returns."""
        while True:
            # too many changes may have been missed, or it did not answer: then all is read again
            with contextlib.suppress(StoreError):
                await self._copy(store)
            await asyncio.sleep(CONFIRM_S)

    async def _copy(self, store: Store) -> None:
        """Raises StoreError, CompactedError."""
        revision = await store.revision()
        entries = {e.key: e for e in await store.scan("", at=revision)}
        self._revision, self._entries, self.as_of = revision, entries, time.monotonic()
        confirming = asyncio.create_task(self._confirm(store))
        try:
            async for changes in store.watch("", after=revision):
                self._apply(changes)
        finally:
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)

    def _apply(self, changes: Sequence[KeyChange]) -> None:
        for change in changes:
            if change.entry:
                self._entries[change.key] = change.entry
            else:
                self._entries.pop(change.key, None)
            self._revision = max(self._revision, change.revision)

    async def _confirm(self, store: Store) -> None:
        while True:
            await asyncio.sleep(CONFIRM_S)
            asked = time.monotonic()
            with contextlib.suppress(StoreError):
                # its revision counts keys of others too: a second without news of ours means that there are none
                before, newest = self._revision, await store.revision()
                await asyncio.sleep(1.0)
                if newest <= self._revision or before == self._revision:
                    self.as_of = asked

    async def revision(self) -> int:
        """See `Store.revision`."""
        return self._revision

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        return self._entries.get(key)

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """See `Store.scan`; there is the present alone."""
        del at
        return [e for key, e in sorted(self._entries.items()) if key.startswith(prefix)]

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """Raises StoreError."""
        raise StoreError(_REFUSAL)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """Raises StoreError."""
        raise StoreError(_REFUSAL)
        yield ()

    async def compact(self, before: int) -> None:
        """Raises StoreError."""
        raise StoreError(_REFUSAL)

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """Raises StoreError."""
        raise StoreError(_REFUSAL)

    async def revoke_read(self, reader: str) -> None:
        """Raises StoreError."""
        raise StoreError(_REFUSAL)

    async def close(self) -> None:
        """Nothing is open."""
