"""The copy of the store in memory, over a real store: both have the same after each write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.contract.container import Container
from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.errors import RefusedError
from orchestrator.server.records import UpOptions
from orchestrator.server.state import HISTORY, ClusterState
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.interface import Compare, Put
from orchestrator.store.sqlite import SqliteStore

STACK = Stack(name="web", services=(Service(name="a", where="f:1", container=Container(image="i")),))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[ClusterState]:
    store = await SqliteStore.open(tmp_path / "store.db")
    yield ClusterState(store)
    await store.close()


def task(number: int, node: str = "n1") -> Task:
    return Task(name=f"web-a-{number}", stack="web", service="a", index=number, node=node, container=Container(image="i"))


async def test_a_strict_task_that_is_deleted_is_held_until_its_node_is_done(state: ClusterState) -> None:
    strict = msgspec.structs.replace(task(1, "n2"), boot_wait_s=None)
    await state.put(tasks=[strict, task(2)])
    await state.delete_tasks([strict.name, task(2).name])
    again = ClusterState(state.store)
    await again.load()
    assert again.held == state.held == {strict.name: "n2"}
    await again.release([strict.name])
    third = ClusterState(state.store)
    await third.load()
    assert third.held == {}


async def same_as_stored(state: ClusterState) -> bool:
    again = ClusterState(state.store)
    await again.load()
    return (again.tasks, again.networks, again.stacks, again.volumes) == (
        state.tasks,
        state.networks,
        state.stacks,
        state.volumes,
    )


async def test_a_task_that_moves_has_one_key(state: ClusterState) -> None:
    tasks = [task(n) for n in range(1, 101)]
    await state.put(tasks=tasks, networks=[Network(name="web_default", stack="web")])
    assert await same_as_stored(state)
    moved = [msgspec.structs.replace(t, node="n2") for t in tasks[:70]]
    fresh = task(101)
    await state.put(tasks=[fresh, *moved], networks=[Network(name="web_other", stack="web")])
    assert await same_as_stored(state)
    keys = {e.key for e in await state.store.scan("tasks/")}
    assert len(keys) == 101
    assert {f"tasks/n2/{t.name}" for t in moved} <= keys
    assert {t.name for t in state.of_stack("web").tasks} == {t.name for t in (*tasks, fresh)}


async def test_both_operations_of_a_move_are_one_revision(state: ClusterState) -> None:
    tasks = [task(n) for n in range(1, 101)]
    await state.put(tasks=tasks)
    # an odd number of other operations, and more of all than one transaction takes
    networks = [Network(name=f"web_{n}", stack="web") for n in range(3)]
    await state.put(tasks=[task(101), *(msgspec.structs.replace(t, node="n2") for t in tasks)], networks=networks)
    found = {e.key: e for e in await state.store.scan("tasks/n2/")}
    assert len(found) == 100
    after = min(e.created for e in found.values()) - 1
    async for changes in state.store.watch("tasks/", after=after):
        names = [c.key.rsplit("/", 1)[1] for c in changes]
        pairs = [n for n in names if n != "web-a-101"]
        assert all(pairs.count(n) == 2 for n in pairs)
        if "web-a-101" in names:
            break


async def test_deleted_tasks_are_gone_and_drain_no_more(state: ClusterState) -> None:
    await state.put(tasks=[task(1), task(2)])
    state.draining |= {"web-a-1", "web-a-2"}
    await state.delete_tasks(["web-a-1", "not-there"])
    assert state.tasks.keys() == {"web-a-2"}
    assert state.draining == {"web-a-2"}
    assert await same_as_stored(state)


async def test_revisions_count_on_and_the_oldest_go(state: ClusterState) -> None:
    for _ in range(HISTORY + 2):
        record, operations = await state.next_revision(STACK, UpOptions(user="ada"))
        await state.transact(operations)
        state.stacks["web"] = record
    assert await same_as_stored(state)
    assert [r.revision for r in await state.history("web")] == list(range(3, HISTORY + 3))
    del state.stacks["web"]  # it is down; what it was is known
    record, _ = await state.next_revision(STACK, UpOptions())
    assert record.revision == HISTORY + 3


async def test_a_comparison_that_does_not_hold_writes_nothing(state: ClusterState) -> None:
    await state.put(tasks=[task(1)])
    with pytest.raises(RefusedError, match="try again"):
        await state.transact([Put("tasks/n1/web-a-2", b"{}")], [Compare("tasks/n1/web-a-1", 0)])
    assert await same_as_stored(state)


async def test_what_is_not_there_is_named(state: ClusterState) -> None:
    with pytest.raises(RefusedError, match="there is no stack web"):
        state.get_service("web", "a")
    record, _ = await state.next_revision(STACK, UpOptions())
    state.stacks["web"] = record
    assert state.get_service("web", "a").name == "a"
    with pytest.raises(RefusedError, match="no such service: b; stack web has: a"):
        state.get_service("web", "b")
