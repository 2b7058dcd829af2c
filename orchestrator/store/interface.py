"""The Store interface: etcd's semantics, kept to the letter by every backend.

One revision a transaction; a watch resumes at any later revision; "compacted" is an answer and not an accident.
Source: etcd API reference (KV, Watch).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

import msgspec

from agent.contract.manifest import EtcdCredentials
from orchestrator.errors import PystackError

MAX_OPERATIONS = 64
MAX_VALUE = 1 << 20  # bytes, of one value and of all in a transaction


class StoreError(PystackError):
    """The store cannot do what was asked: it is full, damaged, or too new."""


class CompactedError(StoreError):
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


def validate_ops(then: Sequence[Op]) -> None:
    """Raises StoreError where no backend would take *then*."""
    if len(then) > MAX_OPERATIONS:
        raise StoreError(f"a transaction has at most {MAX_OPERATIONS} operations, this one {len(then)}")
    if len({op.key for op in then}) != len(then):
        raise StoreError("a transaction names each key once")
    for op in then:
        if isinstance(op, Put) and len(op.value) > MAX_VALUE:
            raise StoreError(f"{op.key}: a value has at most {MAX_VALUE} bytes, this one {len(op.value)}")
    size = sum(len(op.value) for op in then if isinstance(op, Put))
    if size > MAX_VALUE:
        raise StoreError(f"a transaction's values have at most {MAX_VALUE} bytes together, these {size}")


def batches(operations: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """*operations* in order, in parts that one transaction takes each."""
    part: list[Op] = []
    size = 0
    for op in operations:
        length = len(op.value) if isinstance(op, Put) else 0
        if part and (len(part) == MAX_OPERATIONS or size + length > MAX_VALUE):
            yield part
            part, size = [], 0
        part.append(op)
        size += length
    if part:
        yield part


class TransactionResult(msgspec.Struct, frozen=True):
    """*succeeded* is false where a comparison did not hold: then nothing was done. *revision* is the store's now."""

    succeeded: bool
    revision: int


class KeyChange(msgspec.Struct, frozen=True):
    """One change of one revision; *entry* is None for a deletion."""

    key: str
    revision: int
    entry: Entry | None


class Store(Protocol):
    async def revision(self) -> int: ...

    async def get(self, key: str) -> Entry | None: ...

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """All entries below *prefix*, by key; as they were at revision *at* where given. Raises CompactedError."""
        ...

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """*then* as one revision if every comparison holds, otherwise nothing; each key once, at most 64 operations."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """Each later revision once and in order. Raises CompactedError."""
        ...

    async def compact(self, before: int) -> None:
        """Forget what was only true before revision *before*."""
        ...

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """Let *reader* read what lies below *prefix*, and nothing else, with credentials of its own. Raises StoreError where
        the store has no users."""
        ...

    async def revoke_read(self, reader: str) -> None:
        """Take back what `admit` gave; nothing there is fine."""
        ...

    async def close(self) -> None: ...
