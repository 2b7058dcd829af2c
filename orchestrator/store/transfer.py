"""Backup, restore and migration of a store.

A backup is lines of JSON: first {"pystack-store": 1, "revision": …, "entries": …}, then {"key": …, "value": base64} each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from orchestrator.store.interface import Entry, Put, Store, StoreError, batches
from orchestrator.store.sqlite import SqliteStore

FORMAT = 1


class _Head(msgspec.Struct, rename={"format": "pystack-store"}):
    format: int
    revision: int
    entries: int


class _Line(msgspec.Struct):
    key: str
    value: str


async def open_store(where: str, *, ca: str = "", cert: str = "", key: str = "") -> Store:
    """The store at *where*: etcd://… or the path of an embedded store's file. No other server writes it until it is closed.

    Raises StoreError, at once where servers use it."""
    if "://" not in where:
        return await SqliteStore.open(Path(where))
    from orchestrator.store.etcd.address import Address
    from orchestrator.store.etcd.store import EtcdStore

    store = await EtcdStore.open(Address.parse(where, ca=ca, cert=cert, key=key))
    try:
        await store.lead("pystack store", wait=False)
    except BaseException:
        await store.close()
        raise
    return store


async def dump(store: Store) -> Iterator[bytes]:
    """The lines of a backup, all as of one revision. Raises StoreError."""
    revision = await store.revision()
    entries = await store.scan("", at=revision)
    head = msgspec.json.encode(_Head(format=FORMAT, revision=revision, entries=len(entries)))
    return (
        line + b"\n"
        for line in (head, *(msgspec.json.encode(_Line(key=e.key, value=base64.b64encode(e.value).decode())) for e in entries))
    )


def read(lines: Iterable[bytes], name: str) -> list[Put]:
    """The entries of a backup called *name*. Raises StoreError if it is damaged, incomplete, or of a newer version."""
    rest = iter(lines)
    try:
        head = msgspec.json.decode(next(rest, b""), type=_Head)
        if head.format > FORMAT:
            raise StoreError(f"{name} was written by a newer pystack (backup version {head.format}): upgrade this one")
        found = [msgspec.json.decode(line, type=_Line) for line in rest]
        out = [Put(one.key, base64.b64decode(one.value, validate=True)) for one in found]
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise StoreError(f"{name} is not a backup of a store, or is damaged: {error}") from None
    if len(out) != head.entries:
        raise StoreError(f"{name} is cut short: it holds {len(out)} of {head.entries} entries")
    return out


async def fill(store: Store, entries: Sequence[Put]) -> int:
    """Write *entries* into an empty *store*, and read them back. Returns how many there are. Raises StoreError."""
    if there := await store.scan(""):
        raise StoreError(f"the target store is not empty: it has {len(there)} entries, {there[0].key} among them")
    for batch in batches(entries):
        await store.transact((), batch)
    wanted = sorted((e.key, e.value) for e in entries)
    if [(e.key, e.value) for e in await store.scan("")] != wanted:
        raise StoreError("the new store does not have what was written to it: do not use it")
    return len(wanted)


def as_puts(entries: Sequence[Entry]) -> list[Put]:
    """The operations that write *entries* to another store."""
    return [Put(e.key, e.value) for e in entries]
