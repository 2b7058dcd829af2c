"""Both backends: SQLite, and three real etcd members."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.interface import Store
from orchestrator.store.sqlite import SqliteStore
from tests.store.members import Members


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    if not shutil.which("etcd") or not shutil.which("etcdctl"):
        pytest.skip("etcd is not installed (etcd-server, etcd-client)")
    made = Members(tmp_path_factory.mktemp("etcd"))
    yield made
    made.stop()


@pytest.fixture
async def etcd(members: Members) -> AsyncIterator[EtcdStore]:
    made = await EtcdStore.open(members.address(uuid.uuid4().hex[:8]))
    await made.lead("test")
    yield made
    await made.close()


@pytest.fixture(params=["sqlite", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "etcd":
        members = request.getfixturevalue("members")
        made: Store = await EtcdStore.open(members.address(uuid.uuid4().hex[:8]))
        await made.lead("test")  # type: ignore[attr-defined]
    else:
        made = await SqliteStore.open(tmp_path / "store.db")
    yield made
    await made.close()
