"""Cleaning up runs to its end, however often whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.cancellation import to_end


async def test_it_ends_before_the_cancellation_is_raised() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("begun")
        await asyncio.to_thread(time.sleep, 0.05)
        steps.append("done")

    waiting = asyncio.create_task(to_end(work()))
    while not steps:
        await asyncio.sleep(0)
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert steps == ["begun", "done"]


async def test_its_result_and_its_failure_are_the_caller_s() -> None:
    async def two() -> int:
        return 2

    async def wrong() -> None:
        raise ValueError("x")

    assert await to_end(two()) == 2
    with pytest.raises(ValueError, match="x"):
        await to_end(wrong())
