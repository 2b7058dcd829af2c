"""Garbage in the store is named and set aside; what a newer server wrote stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.contract.container import Container
from agent.contract.task import Task
from orchestrator.placement.node import Node
from orchestrator.server import store_keys
from orchestrator.server.checked_store import CheckedStore, merged, unknown_fields
from orchestrator.server.state import ClusterState
from orchestrator.store.interface import Delete, Put
from orchestrator.store.sqlite import SqliteStore

TASK = Task(name="s-web-1", stack="s", service="web", container=Container(image="i"), node="n1")


@pytest.fixture
async def inner(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "store.db")
    yield made
    await made.close()


async def test_a_record_that_cannot_be_read_is_named_and_set_aside(
    inner: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    good = Put(store_keys.of_task(TASK), msgspec.json.encode(TASK))
    await inner.transact((), [good, Put("tasks/n1/torn", b'{"name": "torn", "sta'), Put("tasks/n1/odd", b'{"name": 5}')])
    state = ClusterState(CheckedStore(inner))
    await state.load()
    assert list(state.tasks) == [TASK.name]
    assert "tasks/n1/torn cannot be read" in caplog.text
    assert {e.key for e in await inner.scan("")} == {good.key, "damaged/tasks/n1/torn", "damaged/tasks/n1/odd"}
    assert (await inner.scan("damaged/tasks/n1/torn"))[0].value == b'{"name": "torn", "sta'


async def test_fields_of_a_newer_version_stay_when_a_record_is_written(inner: SqliteStore) -> None:
    """A task that moves has another key."""
    raw = json.loads(msgspec.json.encode(TASK))
    raw |= {"colour": "red", "container": {**raw["container"], "shape": {"round": True}}}
    node = {**json.loads(msgspec.json.encode(Node(name="n1", id="1"))), "rank": 7}
    await inner.transact(
        (), [Put(store_keys.of_task(TASK), json.dumps(raw).encode()), Put("nodes/n1", json.dumps(node).encode())]
    )
    store = CheckedStore(inner)
    state = ClusterState(store)
    await state.load()
    await store.scan("nodes/")
    await state.put(tasks=[msgspec.structs.replace(state.tasks[TASK.name], node="n2", generation=1)])
    await store.transact((), [Put("nodes/n1", msgspec.json.encode(Node(name="n1", id="1", availability="drain")))])
    written = {e.key: json.loads(e.value) for e in await inner.scan("")}
    assert written.keys() == {"tasks/n2/s-web-1", "nodes/n1"}
    assert written["tasks/n2/s-web-1"] == {**raw, "node": "n2", "generation": 1}
    assert written["nodes/n1"] == {**node, "availability": "drain"}
    # one that is made anew has nothing of its predecessor
    await store.transact((), [Delete("nodes/n1")])
    await store.transact((), [Put("nodes/n1", msgspec.json.encode(Node(name="n1", id="2")))])
    assert json.loads((await inner.scan("nodes/n1"))[0].value) == {"name": "n1", "id": "2"}


def test_what_a_type_does_not_know_is_found_and_put_back() -> None:
    found = {"name": "n1", "id": "1", "info": {"cpus": 2.0, "cores": 1}, "new": [1]}
    unknown = unknown_fields(found, Node)
    assert unknown == {"info": {"cores": 1}, "new": [1]}
    assert merged({"name": "n1", "info": {"cpus": 3.0}}, unknown) == {
        "name": "n1",
        "info": {"cpus": 3.0, "cores": 1},
        "new": [1],
    }
    assert merged({"name": "n1"}, {"info": {"cores": 1}}) == {"name": "n1", "info": {"cores": 1}}
    assert unknown_fields({"name": "n1"}, Node) == {}


class Disk(msgspec.Struct, omit_defaults=True):
    name: str
    size: int = 0


class Check(msgspec.Struct):
    every: int


class Machine(msgspec.Struct, omit_defaults=True):
    disks: tuple[Disk, ...] = ()
    check: Check | None = None
    spare: tuple[Disk, ...] | None = None


SOLID = {"name": "c", "kind": {"ssd": True}}
NEWER = {
    "disks": [{"name": "a", "size": 1, "speed": 9}, {"name": "b"}, SOLID],
    "check": {"every": 5, "jitter": 1},
    "spare": [{"name": "z", "speed": 2}],
}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (Machine((Disk("a", 1), Disk("b"), Disk("c")), Check(5), (Disk("z"),)), NEWER),
        (Machine((Disk("c"), Disk("a", 2))), {"disks": [SOLID, {"name": "a", "size": 2, "speed": 9}]}),
        (Machine((Disk("d"),)), {"disks": [{"name": "d"}]}),
        (Machine(check=Check(6)), {"check": {"every": 6, "jitter": 1}}),
        (Machine(), {}),
    ],
    ids=["as it was", "in another order and changed", "another one", "an inner record is changed", "all is gone"],
)
def test_what_is_unknown_of_inner_records_stays_with_them(written: Machine, wanted: object) -> None:
    """An older server that scaled a stack dropped the newer one's fields of each service."""
    unknown = unknown_fields(NEWER, Machine)
    record = merged(json.loads(msgspec.json.encode(written)), unknown)
    assert record == wanted
    msgspec.convert(record, Machine)
