"""A store that is written all the time keeps what is and what was lately, and no more."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.server.compaction import Compactor
from orchestrator.store.interface import CompactedError, Put, Store
from tests.conftest import PATIENCE


async def test_history_goes_and_what_is_stays(store: Store) -> None:
    await store.transact([], [Put("other", b"1")])
    first = (await store.transact([], [Put("k", b"0")])).revision
    running = asyncio.create_task(Compactor(store, keep_s=0.1, every_s=0.02).run())
    try:
        async with asyncio.timeout(20 * PATIENCE):
            number = 0
            while True:
                number += 1
                await store.transact([], [Put("k", str(number).encode())])
                try:
                    await store.scan("k", at=first)
                except CompactedError:
                    break
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
    assert [(e.key, e.value) for e in await store.scan("")] == [("k", str(number).encode()), ("other", b"1")]
    assert number > 1


async def test_what_is_new_is_kept(store: Store) -> None:
    first = (await store.transact([], [Put("k", b"0")])).revision
    running = asyncio.create_task(Compactor(store, keep_s=3600, every_s=0.01).run())
    for number in range(20):
        await store.transact([], [Put("k", str(number).encode())])
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [e.value for e in await store.scan("k", at=first)] == [b"0"]
