"""The Store's promises, on every backend there is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.store.interface import CompactedError, Compare, Delete, Put, Store, StoreError
from orchestrator.store.sqlite import SqliteStore


async def test_one_revision_a_transaction(store: Store) -> None:
    before = await store.revision()
    outcome = await store.transact([], [Put("a", b"1"), Put("b", b"2")])
    assert outcome.revision == before + 1
    entry = await store.get("b")
    assert entry is not None
    assert (entry.value, entry.created, entry.modified, entry.version) == (b"2", before + 1, before + 1, 1)


async def test_a_comparison_that_fails_changes_nothing(store: Store) -> None:
    await store.transact([], [Put("a", b"1")])
    outcome = await store.transact([Compare("a", 0)], [Put("a", b"2")])
    assert not outcome.succeeded
    assert (await store.get("a")).value == b"1"  # type: ignore[union-attr]


async def test_a_list_of_the_past(store: Store) -> None:
    first = (await store.transact([], [Put("k/a", b"1"), Put("k/b", b"1")])).revision
    await store.transact([], [Put("k/a", b"2"), Delete("k/b")])
    assert [(e.key, e.value) for e in await store.scan("k/", at=first)] == [("k/a", b"1"), ("k/b", b"1")]
    assert [(e.key, e.value) for e in await store.scan("k/")] == [("k/a", b"2")]


async def test_a_watch_sees_each_revision_once_and_in_order(store: Store) -> None:
    start = await store.revision()
    await store.transact([], [Put("w/a", b"1")])
    seen = []

    async def follow() -> None:
        async for changes in store.watch("w/", after=start):
            seen.append([(c.key, c.entry.value if c.entry else None) for c in changes])
            if len(seen) == 3:
                return

    task = asyncio.create_task(follow())
    await store.transact([], [Put("w/b", b"2"), Put("x", b"not mine")])
    await store.transact([], [Delete("w/a")])
    await asyncio.wait_for(task, 10)
    assert seen == [[("w/a", b"1")], [("w/b", b"2")], [("w/a", None)]]


async def test_compacted_is_an_answer(store: Store) -> None:
    first = (await store.transact([], [Put("a", b"1")])).revision
    last = (await store.transact([], [Put("a", b"2")])).revision
    await store.compact(last)
    with pytest.raises(CompactedError):
        await store.scan("a", at=first)
    assert [e.value for e in await store.scan("a", at=last)] == [b"2"]


async def test_writes_side_by_side_are_all_kept(store: Store) -> None:
    before = await store.revision()
    await asyncio.gather(*(store.transact([], [Put(f"p/{n:03d}", b"x")]) for n in range(200)))
    assert len(await store.scan("p/")) == 200
    assert await store.revision() == before + 200


async def test_a_second_server_is_refused(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "store.db")
    with pytest.raises(StoreError, match="in use by another server"):
        await SqliteStore.open(tmp_path / "store.db")
    await first.close()


async def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="is damaged"):
        await SqliteStore.open(tmp_path / "broken.db")


async def test_too_large_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="at most 64 operations"):
        await store.transact([], [Put(str(n), b"") for n in range(65)])


async def test_damage_inside_the_file_is_said_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    for number in range(200):
        await store.transact([], [Put(f"k/{number}", b"x" * 5000)])
    await store.close()
    raw = bytearray(path.read_bytes())
    raw[8192:400_000] = bytes((b * 7 + 13) % 256 for b in raw[8192:400_000])
    path.write_bytes(raw)
    store = await SqliteStore.open(path)
    with pytest.raises(StoreError, match=r"store.db is damaged \(.*\): restore a backup"):
        await store.scan("")
    await store.close()
