"""Backups and migrations, between both backends, compared key by key."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

import pytest

from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.interface import Delete, Put, Store, StoreError
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.transfer import as_puts, dump, fill, open_store, read
from tests.store.members import Members


async def content(store: Store) -> list[tuple[str, bytes]]:
    return [(e.key, e.value) for e in await store.scan("")]


@pytest.fixture
async def full(tmp_path: Path) -> SqliteStore:
    made = await SqliteStore.open(tmp_path / "full.db")
    for number in range(150):
        await made.transact((), [Put(f"k/{number}", os.urandom(number * 50)), Put(f"ü/{number}", b"")])
    await made.transact((), [Delete("k/3")])
    return made


async def test_from_one_backend_to_the_other_and_back(full: SqliteStore, members: Members, tmp_path: Path) -> None:
    address = members.address(uuid.uuid4().hex[:8])
    url = f"etcd://{','.join(address.members)}/{address.prefix}"
    other = await open_store(url, ca=address.ca, cert=address.cert, key=address.key)
    before = await content(full)
    assert await fill(other, as_puts(await full.scan(""))) == 299
    assert await content(other) == before
    third = await open_store(str(tmp_path / "third.db"))
    assert await fill(third, as_puts(await other.scan(""))) == 299
    assert await content(third) == before
    with pytest.raises(StoreError, match="is not empty"):
        await fill(third, [Put("a", b"")])
    for one in (full, other, third):
        await one.close()


async def test_a_backup_is_restored_whole_or_refused(full: SqliteStore, tmp_path: Path) -> None:
    lines = list(await dump(full))
    before = await content(full)
    await full.close()
    fresh = await SqliteStore.open(tmp_path / "fresh.db")
    await fill(fresh, read(lines, "backup"))
    assert await content(fresh) == before
    await fresh.close()
    with pytest.raises(StoreError, match="cut short: it holds 298 of 299"):
        read(lines[:-1], "backup")
    with pytest.raises(StoreError, match="is not a backup"):
        read([b"hello\n"], "backup")
    with pytest.raises(StoreError, match="is not a backup"):
        read([*lines[:5], lines[5][: len(lines[5]) // 2]], "backup")
    with pytest.raises(StoreError, match="newer pystack"):
        read([lines[0].replace(b'"pystack-store":1', b'"pystack-store":9')], "backup")


async def test_a_store_that_servers_use_is_refused_at_once(members: Members) -> None:
    """Whoever restores must neither wait for its leader's end nor lead after it."""
    address = members.address(uuid.uuid4().hex[:8])
    url = f"etcd://{','.join(address.members)}/{address.prefix}"
    server = await EtcdStore.open(address)
    try:
        await server.lead("n1")
        async with asyncio.timeout(10):
            with pytest.raises(StoreError, match="the store is in use: n1 leads on it: stop all its servers first"):
                await open_store(url, ca=address.ca, cert=address.cert, key=address.key)
        assert not server.lost.is_set()
        await server.transact((), [Put("a", b"1")])
    finally:
        await server.close()
    freed = await open_store(url, ca=address.ca, cert=address.cert, key=address.key)
    assert await content(freed) == [("a", b"1")]
    await freed.close()
