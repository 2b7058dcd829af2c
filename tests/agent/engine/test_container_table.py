"""The table of a node's containers: found, kept on disk, waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.contract.container import Container, Mount
from agent.engine.container_table import ContainerTable
from agent.engine.events import Events
from agent.engine.records import Record, load
from agent.errors import BadRequestError, ConflictError, NotFoundError
from agent.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path, tmp_path / "run", "")
    for folder in (made.run, made.containers):
        folder.mkdir()
    return made


@pytest.fixture
def events(paths: Paths) -> Events:
    return Events(paths.run / "events.jsonl")


@pytest.fixture
def table(paths: Paths, events: Events) -> ContainerTable:
    return ContainerTable(paths, events)


def record(name: str, ident: str = "", **fields: object) -> Record:
    made = Record(id=ident or name.ljust(64, "0"), name=name, container=Container(image="busybox"), created="")
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def test_a_container_is_found_by_name_id_and_unambiguous_beginning(table: ContainerTable) -> None:
    one, two = record("one", "abc" + "0" * 61), record("two", "abd" + "0" * 61)
    for each in (one, two):
        table.add(each)
    assert table.find("one") is table.find("/one") is table.find(one.id) is table.find("abc") is one
    for name in ("three", "a", "abx"):
        with pytest.raises(NotFoundError):
            table.find(name)
    with pytest.raises(BadRequestError, match="2 containers' IDs begin with ab"):
        table.find("ab")


def test_a_name_is_given_once(table: ContainerTable) -> None:
    table.require_free_name("one")
    table.add(record("one"))
    with pytest.raises(ConflictError, match='The container name "/one" is already in use'):
        table.require_free_name("one")


def test_a_transition_is_on_disk_told_and_seen(table: ContainerTable, events: Events, paths: Paths) -> None:
    seen: list[str] = []
    table.changed = lambda r: seen.append(r.state)
    one = record("one")
    table.add(one)
    table.transition(one, "die", state="exited", exit_code=3)
    kept = load(paths.container(one.id))
    assert kept is not None
    assert (kept.state, kept.exit_code) == ("exited", 3)
    assert seen == ["created", "exited"]
    assert [(e["Action"], e["Actor"]["Attributes"].get("exitCode")) for e in events.recent] == [  # type: ignore[index]
        ("create", None),
        ("die", "3"),
    ]
    table.transition(one, restarts=1)
    assert len(events.recent) == 2  # no event has no name


def test_a_container_that_cannot_be_written_down_is_not_there(table: ContainerTable, events: Events, paths: Paths) -> None:
    one = record("one")
    (paths.containers / one.id).mkdir()
    (paths.containers / one.id / "in-the-way").touch()
    with pytest.raises(OSError, match="exists"):
        table.add(one)
    assert table.records == {}
    assert not events.recent


def test_what_becomes_of_a_container_counts_even_if_it_cannot_be_written_down(table: ContainerTable, paths: Paths) -> None:
    one = record("one")
    table.add(one)
    (paths.container(one.id) / "record.json").unlink()
    (paths.container(one.id) / "record.json").mkdir()
    table.transition(one, state="exited")
    assert table.find("one").state == "exited"


async def test_waiting_for_the_end(table: ContainerTable) -> None:
    one = record("one", state="running")
    waiter = asyncio.create_task(table.wait(one))
    await asyncio.sleep(0)
    table.wake(one)  # something else has changed: it still runs
    await asyncio.sleep(0)
    assert not waiter.done()
    one.state, one.exit_code = "exited", 7
    table.wake(one)
    assert await waiter == 7


def test_the_users_of_a_volume_are_those_who_name_it_and_those_whose_own_it_is(table: ContainerTable) -> None:
    named = record("named", container=Container(image="x", mounts=(Mount(kind="volume", source="data", target="/d"),)))
    own = record("own", anonymous={"/d": "data"})
    bound = record("bound", container=Container(image="x", mounts=(Mount(kind="bind", source="data", target="/d"),)))
    for each in (named, own, bound):
        table.add(each)
    assert table.users_of_volume("data") == ["named", "own"]


def test_nothing_is_left_of_a_container_that_is_forgotten(table: ContainerTable) -> None:
    one = record("one")
    table.add(one)
    flags = (table.not_listening, table.stuck, table.waiting)
    for each in flags:
        each.add(one.id)
    table.forget(one)
    assert not any(flags)
    assert not table.records
