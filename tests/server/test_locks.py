"""Changes of one thing go one after the other; who waits is told for whom, and the newest wish goes first."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import RefusedError
from orchestrator.server.events import Event, WarningEvent
from orchestrator.server.locks import ChangeLock


async def _begun(lock: ChangeLock, verb: str, said: list[Event]) -> asyncio.Task[None]:
    """A change that never ends by itself."""

    async def change() -> None:
        async with lock.hold(verb, said.append):
            await asyncio.Event().wait()

    task = asyncio.create_task(change())
    await asyncio.sleep(0)
    return task


async def test_who_waits_is_told_for_whom() -> None:
    lock, said = ChangeLock("stack web"), list[Event]()
    first, second = await _begun(lock, "up", said), await _begun(lock, "restart", said)
    assert said == [WarningEvent(message="stack web: this `restart` waits for a `up` that began 0 s ago")]
    first.cancel()
    second.cancel()
    assert [type(e) for e in await asyncio.gather(first, second, return_exceptions=True)] == [asyncio.CancelledError] * 2
    async with lock.hold("up", said.append):
        assert len(said) == 1


async def test_down_comes_before_every_up_that_holds_or_waits() -> None:
    lock, said = ChangeLock("stack web"), list[Event]()
    ups = [await _begun(lock, "up", said) for _ in range(3)]
    async with asyncio.timeout(5), lock.hold("down", said.append, instead_of=("up",)):
        assert isinstance(said[-1], WarningEvent)
        assert said[-1].message == "stack web: its `up`, which began 0 s ago, is given up for this `down`"
        for up in ups:
            with pytest.raises(RefusedError, match="`down` came meanwhile, so this `up` was given up"):
                await up
            assert not up.cancelling()


async def test_what_is_no_up_is_not_given_up() -> None:
    lock, said = ChangeLock("stack web"), list[Event]()
    restart = await _begun(lock, "restart", said)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), lock.hold("down", said.append, instead_of=("up",)):
            pass
    assert not restart.done()
    restart.cancel()
