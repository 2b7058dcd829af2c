"""Waiting for a status ends in time and can be cancelled, however busy the cluster is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.server.statuses import Statuses

MANY = 100


async def ended_amid_news(wait: Callable[[Statuses], Coroutine[None, None, None]], *, cancelled: bool) -> int:
    """How many of MANY waits ended within two seconds, while something was reported in each turn of the loop: in the one in
    which a deadline passes or somebody cancels, too."""
    loop, statuses, going = asyncio.get_running_loop(), Statuses(), True

    def again() -> None:
        statuses.wake()
        if going:
            loop.call_soon(again)

    tasks = [asyncio.create_task(wait(statuses)) for _ in range(MANY)]
    again()
    await asyncio.sleep(0)
    if cancelled:
        for task in tasks:
            task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=2)
    going = False  # from here on every wait can be ended
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(done)


async def test_a_deadline_ends_the_wait_of_each_of_many() -> None:
    async def wait(statuses: Statuses) -> None:
        with pytest.raises(TimeoutError):
            await statuses.until(lambda: None, within_s=0.3)

    assert await ended_amid_news(wait, cancelled=False) == MANY


async def test_a_wait_can_be_cancelled_while_news_comes() -> None:
    async def wait(statuses: Statuses) -> None:
        await statuses.until(lambda: None)

    assert await ended_amid_news(wait, cancelled=True) == MANY


async def test_no_time_at_all_is_one_question() -> None:
    assert await Statuses().until(lambda: "yes", within_s=0) == "yes"
    with pytest.raises(TimeoutError):
        await Statuses().until(lambda: None, within_s=0)


def test_what_a_node_says_of_a_task_that_is_another_nodes_by_now_counts_no_more() -> None:
    statuses = Statuses()
    statuses.update("n3", TaskStatus(task="s-web-1", state="running", container="c"))
    moved = Task(name="s-web-1", stack="s", service="web", container=Container(image="i"), node="n4")
    statuses.outdate([moved])
    assert not statuses.by_task
    statuses.update("n4", TaskStatus(task="s-web-1", state="running", container="d"))
    statuses.outdate([moved])
    assert statuses.nodes == {"s-web-1": "n4"}
