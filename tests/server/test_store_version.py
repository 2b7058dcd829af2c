"""A store that a newer version wrote is refused; one of the same format is taken over, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orchestrator import __version__
from orchestrator.errors import PystackError
from orchestrator.server.store_version import FORMAT, KEY, StoreFormat, claim
from orchestrator.store.interface import Put
from orchestrator.store.sqlite import SqliteStore


async def _after(path: Path, written: bytes | None) -> tuple[StoreFormat, int]:
    """What the store says of itself after a server took it over twice, and how often it was written."""
    store = await SqliteStore.open(path / "store.db")
    try:
        if written:
            await store.transact((), [Put(KEY, written)])
        await claim(store)
        await claim(store)
        entry = await store.get(KEY)
        assert entry
        return msgspec.json.decode(entry.value, type=StoreFormat), entry.version
    finally:
        await store.close()


async def test_a_new_store_says_who_writes_it(tmp_path: Path) -> None:
    assert await _after(tmp_path, None) == (StoreFormat(written_by=__version__), 1)


async def test_an_older_versions_store_is_taken_over(tmp_path: Path) -> None:
    found, _ = await _after(tmp_path, b'{"written_by": "0.0.9", "and": "what is not known"}')
    assert found.written_by == __version__


async def test_a_newer_formats_store_is_left_alone(tmp_path: Path) -> None:
    written = msgspec.json.encode({"format": FORMAT + 1, "written_by": "9.0"})
    with pytest.raises(PystackError, match=r"written by pystack 9\.0 in format 2"):
        await _after(tmp_path, written)
    store = await SqliteStore.open(tmp_path / "store.db")
    try:
        entry = await store.get(KEY)
        assert entry
        assert entry.value == written
    finally:
        await store.close()
