"""One run serves all who asked before it began."""

from __future__ import annotations

import asyncio

import pytest

from agent.contract.coalescing import Coalescer


async def test_calls_of_one_moment_share_a_run_and_a_later_one_gets_the_next() -> None:
    begun = 0
    go_on = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()

    coalesced = Coalescer(work)
    first = [asyncio.create_task(coalesced()) for _ in range(3)]
    while begun < 1:
        await asyncio.sleep(0)
    late = [asyncio.create_task(coalesced()) for _ in range(3)]
    await asyncio.sleep(0)
    assert begun == 1
    go_on.set()
    await asyncio.gather(*first, *late)
    assert begun == 2
    await coalesced.drain()


async def test_all_who_share_a_run_get_its_error_and_the_next_run_is_another() -> None:
    outcomes = [ValueError("once"), None]

    async def work() -> None:
        if error := outcomes.pop(0):
            raise error

    coalesced = Coalescer(work)
    assert [type(e) for e in await asyncio.gather(coalesced(), coalesced(), return_exceptions=True)] == [ValueError] * 2
    await coalesced()


async def test_a_caller_that_is_cancelled_does_not_end_the_run_of_others() -> None:
    go_on, done = asyncio.Event(), False

    async def work() -> None:
        nonlocal done
        await go_on.wait()
        done = True

    coalesced = Coalescer(work)
    mine, other = asyncio.create_task(coalesced()), asyncio.create_task(coalesced())
    await asyncio.sleep(0)
    mine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mine
    go_on.set()
    await other
    assert done


async def test_who_waits_is_let_go_when_it_is_closed() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    coalesced = Coalescer(work)
    first = asyncio.create_task(coalesced())
    await begun.wait()
    late = asyncio.create_task(coalesced())
    await asyncio.sleep(0)
    coalesced.close()
    await asyncio.gather(first, late)
    again = Coalescer(work)
    never = asyncio.create_task(again())
    await asyncio.sleep(0)
    again.close()  # the run has not begun
    await never
