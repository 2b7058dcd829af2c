"""The Store interface: etcd's semantics, kept to the letter by every backend.

One revision a transaction; a watch resumes at any later revision; "compacted" is an answer and not an accident.
Source: etcd API reference (KV, Watch).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from orchestrator.errors import PystackError

MAX_OPERATIONS = 64
MAX_VALUE = 1 << 20


class StoreError(PystackError):
    """The store cannot do what was asked: it is full, damaged, or too new."""


class Compacted(StoreError):
    """The revision asked for is gone; *oldest* is the first that is still known."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class Entry(msgspec.Struct, frozen=True):
    """*created* and *modified* are revisions; *version* counts the puts since creation."""

    key: str
    value: bytes
    created: int
    modified: int
    version: int


class Compare(msgspec.Struct, frozen=True):
    """Holds where *key* was last modified at *modified*; 0 means that it does not exist."""

    key: str
    modified: int


class Put(msgspec.Struct, frozen=True, tag=True):
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True, tag=True):
    key: str


Op = Put | Delete


class Outcome(msgspec.Struct, frozen=True):
    """*succeeded* is false where a comparison did not hold: then nothing was done. *revision* is the store's now."""

    succeeded: bool
    revision: int


class Change(msgspec.Struct, frozen=True):
    """One change of one revision; *entry* is None for a deletion."""

    key: str
    revision: int
    entry: Entry | None


class Store(Protocol):
    async def revision(self) -> int: ...

    async def get(self, key: str) -> Entry | None: ...

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """All entries below *prefix*, by key; as they were at revision *at* where given. Raises Compacted."""
        ...

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> Outcome:
        """*then* as one revision if every comparison holds, otherwise nothing. At most 64 operations."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Change]]:
        """Each later revision once and in order. Raises Compacted."""
        ...

    async def compact(self, before: int) -> None:
        """Forget what was only true before revision *before*."""
        ...

    async def close(self) -> None: ...
