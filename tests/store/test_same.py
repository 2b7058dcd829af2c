"""Random operations give the same answers, and revisions the same distance apart, on both backends."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.interface import Compare, Delete, Op, Put, Store
from orchestrator.store.sqlite import SqliteStore
from tests.store.members import Members

pytestmark = pytest.mark.long

KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "b/é", "zz"])
OPS = st.lists(
    st.one_of(st.builds(Put, KEYS, st.binary(max_size=20)), st.builds(Delete, KEYS)), max_size=4, unique_by=lambda op: op.key
)
COMPARES = st.lists(st.tuples(KEYS, st.booleans()), max_size=2, unique_by=lambda c: c[0])


async def _run(store: Store, script: list[tuple[list[tuple[str, bool]], list[Op]]]) -> list[object]:
    start = await store.revision()
    out: list[object] = []
    revisions = [start]
    for compares, then in script:
        asked = []
        for key, right in compares:
            entry = await store.get(key)
            asked.append(Compare(key, (entry.modified if entry else 0) if right else start + 10_000))
        outcome = await store.transact(asked, then)
        revisions.append(outcome.revision)
        out.append((outcome.succeeded, outcome.revision - start))
        out += [
            [(e.key, e.value, e.created - start, e.modified - start, e.version) for e in await store.scan(prefix)]
            for prefix in ("", "a", "a/", "b/")
        ]
    out += [[(e.key, e.value, e.modified - start) for e in await store.scan("", at=revision)] for revision in revisions]
    changes = [c for c in script if c[1]]
    if changes and revisions[-1] > start:

        async def history() -> None:
            async for group in store.watch("a", after=start):
                out.append([(c.key, c.revision - start, c.entry.value if c.entry else None) for c in group])

        task = asyncio.create_task(history())
        await store.transact([], [Put("a", b"the end")])
        while not any(isinstance(g, list) and g and g[-1][-1:] == (b"the end",) for g in out):
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return out


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(COMPARES, OPS), max_size=8))
def test_both_backends_answer_alike(
    members: Members, tmp_path: Path, script: list[tuple[list[tuple[str, bool]], list[Op]]]
) -> None:
    async def body() -> None:
        one: Store = await SqliteStore.open(tmp_path / f"{uuid.uuid4().hex}.db")
        other = await EtcdStore.open(members.address(uuid.uuid4().hex[:8]))
        await other.lead("test")
        try:
            assert await _run(one, script) == await _run(other, script)
        finally:
            await one.close()
            await other.close()

    asyncio.run(body())
