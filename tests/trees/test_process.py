"""The agent's side of a worker: what comes too slowly, too early an end, and no worker left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from agent.trees import process
from tests.images import tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="a worker's mounts need root")]


async def of(*chunks: bytes, then: float = 0.0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then:
        await asyncio.sleep(then)


def children() -> set[str]:
    """The processes that this one has started, also those that are no more and were not waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_progress_is_told_and_the_reply_comes(tmp_path: Path) -> None:
    data = tar_of({"a": b"x" * 100_000})
    heard: list[int] = []
    before = children()
    chunks = [data[n : n + 10_000] for n in range(0, len(data), 10_000)]
    reply = await process.fed("context", (str(tmp_path), ""), of(*chunks), progress=heard.append)
    assert reply["entries"].keys() == {"a"}
    assert sum(heard) == len(data)
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
    assert children() == before


async def test_a_source_that_stalls_is_given_up(tmp_path: Path) -> None:
    before = children()
    reply = await process.fed("context", (str(tmp_path), ""), of(b"", then=600), stall_s=0.2)
    assert reply == {"error": "no byte came for 0.2 s", "status": 400}
    assert children() == before


async def test_what_is_refused_early_is_told_though_more_would_come(tmp_path: Path) -> None:
    reply = await process.fed("context", (str(tmp_path), ""), of(*[b"no archive" * 10_000] * 100))
    assert "not a valid tar archive" in reply["error"]


def test_a_worker_that_ends_early_is_no_error_on_the_loop_of_the_agent(tmp_path: Path) -> None:
    """uvloop's pipe, once closed, raises RuntimeError where asyncio's ignores what is written."""

    before = children()

    async def longer_than_it_lives() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"no archive" * 10_000
        while children() - before:
            await asyncio.sleep(0.01)
        yield b"no archive"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reply = runner.run(process.fed("context", (str(tmp_path), ""), longer_than_it_lives()))
    assert "not a valid tar archive" in reply["error"]


async def test_a_source_that_fails_leaves_no_worker(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield tar_of({"a": b"x"})[:512]
        raise ConnectionError("the registry went away")

    before = children()
    with pytest.raises(ConnectionError, match="went away"):
        await process.fed("context", (str(tmp_path), ""), broken())
    assert children() == before


async def test_a_worker_that_is_no_more_is_told(tmp_path: Path) -> None:
    reply = await process.asked("no_such_module", ())
    assert reply == {"error": "the worker process was killed", "status": 500}


async def test_a_worker_is_told_nothing_but_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSTACK_SECRET", "hush")
    monkeypatch.setenv("PYTHONPATH", "/tmp")
    assert process.environment() == {"LC_ALL": "C.UTF-8"}


async def test_an_archive_that_cannot_be_read_whole_ends_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")

    async def all_of(words: tuple[str, ...]) -> bytes:
        return b"".join([data async for data in process.output("packing", words, lambda reply: OSError(reply["error"]))])

    assert b"f" in await all_of(("export", str(tmp_path), "0"))
    with pytest.raises(OSError, match="the container's files cannot be reached: No such file"):
        await all_of(("export", str(tmp_path / "gone"), "0"))
