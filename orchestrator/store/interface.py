"""The Store interface: every backend has exactly the semantics of etcd.

Each transaction is one revision; a watch can resume after any revision that is not compacted.
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
    """The store cannot do this: it is full, damaged, in use, unreachable, or of a newer version."""


class FencedError(StoreError):
    """Another server leads: this one can no longer write."""


class CompactedError(StoreError):
    """The revision is compacted; *oldest* is the first that is not."""

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
    """Holds if *key* was last modified at revision *modified*; 0 if it does not exist."""

    key: str
    modified: int


class Put(msgspec.Struct, frozen=True, tag=True):
    """Write *key*."""

    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Delete *key*, if it exists."""

    key: str


Op = Put | Delete


def validate_ops(then: Sequence[Op]) -> None:
    """Raises StoreError if *then* is more than a transaction can hold, or names a key twice."""
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
    """*operations* in order, in parts of which each fits into one transaction."""
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
    """*succeeded* is False if a comparison did not hold; then nothing was written. *revision* is the store's after it."""

    succeeded: bool
    revision: int


class KeyChange(msgspec.Struct, frozen=True):
    """One change of one revision; *entry* is None for a deletion."""

    key: str
    revision: int
    entry: Entry | None


class Store(Protocol):
    """Keys with revisions. Every method raises StoreError."""

    @property
    def term(self) -> int:
        """Of the server that writes: it grows with each that begins to; 0 where no other can. See `Manifest.term`."""
        ...

    async def revision(self) -> int:
        """The revision of the last transaction."""
        ...

    async def get(self, key: str) -> Entry | None:
        """The entry of *key*, None if it does not exist."""
        ...

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        """All entries whose key begins with *prefix*, sorted by key; as of revision *at*, 0 for now. Raises CompactedError."""
        ...

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        """Do *then* as one revision if every comparison holds, otherwise nothing. At most MAX_OPERATIONS, each key once, and
        MAX_VALUE bytes of values."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """The changes below *prefix* after revision *after*: each revision once and in order. Raises CompactedError."""
        ...

    async def compact(self, before: int) -> None:
        """Delete the history before revision *before*."""
        ...

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        """Let *reader* read the keys below *prefix*, and no others, with credentials of its own. Raises StoreError if the store
        has no users."""
        ...

    async def revoke_read(self, reader: str) -> None:
        """Take back what `grant_read` gave, if it did."""
        ...

    async def close(self) -> None:
        """Close the store; a server that leads stops leading."""
        ...
