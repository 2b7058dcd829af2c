"""Who is in whose namespaces."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.containers.runtime import Process
from agent.contract.container import Container
from agent.engine import sharing
from agent.engine.container_table import ContainerTable
from agent.engine.events import Events
from agent.engine.records import Record
from agent.errors import ConflictError, NotFoundError
from agent.paths import Paths


@pytest.fixture
def table(tmp_path: Path) -> ContainerTable:
    return ContainerTable(Paths(tmp_path, tmp_path, ""), Events(tmp_path / "events"))


def put(table: ContainerTable, name: str, network: str = "", pid: str = "", **fields: object) -> Record:
    container = Container(image="x", network_mode=network, pid_mode=pid)
    record = Record(id=name.ljust(64, "0"), name=name, container=container, created="", stack="s")
    for key, value in fields.items():
        setattr(record, key, value)
    table.records[record.id] = record
    return record


def test_the_owner_of_a_service_is_a_running_task_of_the_stack(table: ContainerTable) -> None:
    put(table, "by-hand", service="web", state="running")
    put(table, "ended", service="web", task="s-web-1", state="exited")
    running = put(table, "running", service="web", task="s-web-2", state="running")
    user = put(table, "user", network="service:web")
    assert sharing.owner_of(table, user, "service:web") is running
    assert sharing.owner_of(table, user, "container:running") is running
    assert sharing.owner_of(table, user, "host") is None
    with pytest.raises(NotFoundError, match="has no container on this node"):
        sharing.owner_of(table, user, "service:db")
    with pytest.raises(ConflictError, match="ended does not run"):
        sharing.running_owner(table, user, "container:ended")


def test_who_waits_follows_when_the_owner_runs(table: ContainerTable) -> None:
    owner = put(table, "owner", state="exited")
    user = put(table, "user", network="container:owner", state="restarting")
    stopped = put(table, "stopped", network="container:owner", state="restarting", stopped=True)
    table.waiting = {user.id, stopped.id, "gone"}
    assert sharing.waits(table, user)
    assert sharing.ready_to_follow(table) == []
    assert table.waiting == {user.id}
    owner.state = "running"
    assert sharing.ready_to_follow(table) == [user]
    assert not table.waiting


def test_the_users_of_a_namespace_are_those_that_run(table: ContainerTable) -> None:
    owner = put(table, "owner", state="exited")
    here = put(table, "here", state="running", joined={"network": owner.id})
    put(table, "ended", state="exited", joined={"network": owner.id})
    inside = put(table, "inside", state="starting", joined={"pid": owner.id})
    assert sharing.users(table, owner) == [here]
    assert sharing.users(table, owner, *sharing.KINDS) == [here, inside]


async def test_an_end_by_the_kernel_is_told_from_one_of_its_own(table: ContainerTable) -> None:
    owner = put(table, "owner", state="running", process=Process(pid=1, started=1))
    user = put(table, "user", joined={"pid": owner.id})
    assert not await sharing.dies_with_its_owner(table, user, 1)
    dying = asyncio.create_task(sharing.dies_with_its_owner(table, user, sharing.KILLED))
    await asyncio.sleep(0)
    owner.process, owner.state = None, "restarting"
    table.wake(owner)
    assert await dying
    owner.state = "exited"
    assert not await sharing.dies_with_its_owner(table, user, sharing.KILLED)
    table.coming_back.add(owner.id)
    assert await sharing.dies_with_its_owner(table, user, sharing.KILLED)
