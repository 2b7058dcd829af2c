"""After a boot a task waits until it is said to be its node's; without a word, for as long as its fence says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.contract.cluster import ClusterNode
from agent.contract.container import Container
from agent.contract.manifest import Manifest
from agent.contract.task import Task
from agent.engine.boot_fence import BootFence

NODES = (ClusterNode(name="n1"), ClusterNode(name="n2"))


def task(name: str, boot_wait_s: float | None = 15.0) -> Task:
    return Task(name=name, stack="s", service=name, container=Container(image="i"), boot_wait_s=boot_wait_s)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fence(tmp_path: Path) -> BootFence:
    return BootFence(tmp_path / "boot", Clock())


async def test_what_is_still_the_nodes_goes_on_once_the_control_plane_was_heard(fence: BootFence) -> None:
    fence.close_after_boot(Manifest(nodes=NODES, tasks=(task("stays"), task("moved"))))
    assert fence.holds("stays")
    waiting = {name: asyncio.create_task(fence.wait(name)) for name in ("stays", "moved", "new", "")}
    await asyncio.sleep(0)
    assert not waiting["stays"].done()
    fence.confirm([task("stays"), task("new")])
    assert not fence.holds("stays")
    assert {name: await one for name, one in waiting.items()} == {"stays": True, "moved": False, "new": True, "": True}


async def test_without_a_word_a_task_goes_on_after_its_time_and_a_strict_one_does_not(tmp_path: Path) -> None:
    clock = Clock()
    fence = BootFence(tmp_path / "boot", clock)
    fence.close_after_boot(Manifest(nodes=NODES, tasks=(task("web", 0.01), task("db", None))))
    assert fence.holds("web")
    clock.now += 1e9
    assert await fence.wait("web")
    assert fence.holds("db")
    strict = asyncio.create_task(fence.wait("db"))
    await asyncio.sleep(0)
    assert not strict.done()
    fence.confirm([task("db", None)])
    assert await strict


def test_an_agent_that_starts_again_holds_nothing_back(fence: BootFence, tmp_path: Path) -> None:
    manifest = Manifest(nodes=NODES, tasks=(task("web"),))
    fence.close_after_boot(manifest)
    fence.confirm(manifest.tasks)
    again = BootFence(tmp_path / "boot", Clock())
    again.close_after_boot(manifest)
    assert not again.holds("web")


def test_an_agent_that_ends_before_it_heard_anything_waits_again(fence: BootFence, tmp_path: Path) -> None:
    manifest = Manifest(nodes=NODES, tasks=(task("web"),))
    fence.close_after_boot(manifest)
    again = BootFence(tmp_path / "boot", Clock())
    again.close_after_boot(manifest)
    assert again.holds("web")


@pytest.mark.parametrize("nodes", [(), NODES[:1]])
def test_a_node_that_is_alone_waits_for_nobody(fence: BootFence, nodes: tuple[ClusterNode, ...]) -> None:
    fence.close_after_boot(Manifest(nodes=nodes, tasks=(task("web"),)))
    assert not fence.holds("web")
