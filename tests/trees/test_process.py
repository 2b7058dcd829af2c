"""The agent's side of a worker: what comes too slowly, too early an end, and no worker left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from agent.trees import process, workers
from tests.images import tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="a worker's mounts need root")]


async def of(*chunks: bytes, then: float = 0.0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then:
        await asyncio.sleep(then)


def children(pid: int) -> set[int]:
    """The processes that *pid* has started, also those that are no more and were not waited for."""
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def fork_server() -> int:
    """Its process ID. A program that has just been executed has no command line yet."""
    while True:
        for pid in children(os.getpid()):
            if b"agent.trees.fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid


def jobs() -> set[int]:
    """The workers that there are."""
    return children(fork_server())


def status(pids: set[int]) -> str:
    """What the kernel says of each."""
    return "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)


def descriptors(pid: int) -> set[str]:
    """What the descriptors of *pid* are."""
    return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}


async def next_job(known: set[int]) -> int:
    """A worker that is none of *known*, once there is one."""
    while not (found := jobs() - known):
        await asyncio.sleep(0.01)
    return found.pop()


async def test_progress_is_told_and_the_reply_comes(tmp_path: Path) -> None:
    data = tar_of({"a": b"x" * 100_000})
    heard: list[int] = []
    chunks = [data[n : n + 10_000] for n in range(0, len(data), 10_000)]
    reply = await process.fed("context", (str(tmp_path), ""), of(*chunks), progress=heard.append)
    assert reply["entries"].keys() == {"a"}
    assert sum(heard) == len(data)
    assert (tmp_path / "a").read_bytes() == b"x" * 100_000
    assert jobs() == set()


async def test_a_source_that_stalls_is_given_up(tmp_path: Path) -> None:
    reply = await process.fed("context", (str(tmp_path), ""), of(b"", then=600), stall_s=0.2)
    assert reply == {"error": "no byte came for 0.2 s", "status": 400}
    assert jobs() == set()


async def test_what_is_refused_early_is_told_though_more_would_come(tmp_path: Path) -> None:
    reply = await process.fed("context", (str(tmp_path), ""), of(*[b"no archive" * 10_000] * 100))
    assert "not a valid tar archive" in reply["error"]


def test_a_worker_that_ends_early_is_no_error_on_the_loop_of_the_agent(tmp_path: Path) -> None:
    async def longer_than_it_lives() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"no archive" * 10_000
        while jobs():
            await asyncio.sleep(0.01)
        yield b"no archive"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reply = runner.run(process.fed("context", (str(tmp_path), ""), longer_than_it_lives()))
    assert "not a valid tar archive" in reply["error"]


async def test_a_source_that_fails_leaves_no_worker(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield tar_of({"a": b"x"})[:512]
        raise ConnectionError("the registry went away")

    with pytest.raises(ConnectionError, match="went away"):
        await process.fed("context", (str(tmp_path), ""), broken())
    assert jobs() == set()


async def test_a_worker_that_is_no_more_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    async def killed() -> AsyncIterator[bytes]:
        yield tar_of({"a": b"x"})[:512]
        os.kill(fork_server(), signal.SIGKILL)
        yield tar_of({"a": b"x"})[512:]

    reply = await process.fed("context", (str(tmp_path), ""), killed())
    assert reply == {"error": "the worker process was killed", "status": 500}
    assert "entries" in await process.fed("context", (str(tmp_path), ""), of(tar_of({"a": b"x"})))


async def test_a_worker_has_no_descriptor_of_another_nor_of_the_server(tmp_path: Path) -> None:
    """Each process of both: the one that opens the tree, and the confined one that reads the archive."""

    async def until_it_reads(worker: int) -> list[set[str]]:
        while not (inner := children(worker)) or "Seccomp:\t2" not in status(inner):
            await asyncio.sleep(0.01)
        return [descriptors(pid) for pid in (worker, *inner)]

    async with workers.started("context", (str(tmp_path), ""), stdin=PIPE):
        first = await next_job(set())
        ours = await until_it_reads(first)
        async with workers.started("context", (str(tmp_path), ""), stdin=PIPE):
            theirs = await until_it_reads(await next_job({first}))
    ends = [{link for link in links if link.startswith("pipe:")} for links in (*ours, *theirs)]
    assert all(ends)
    assert not (ends[0] | ends[1]) & (ends[2] | ends[3])
    for links in (*ours, *theirs):
        assert not [link for link in links if link.startswith(("socket:", "anon_inode:"))]


def test_nothing_is_left_when_the_loop_has_ended(tmp_path: Path) -> None:
    async def at_work() -> tuple[int, int]:
        await process.fed("context", (str(tmp_path), ""), of(tar_of({"a": b"x"})))
        worker = workers.started("context", (str(tmp_path), ""), stdin=PIPE)
        await worker.__aenter__()
        return fork_server(), await next_job(set())

    server, job = asyncio.run(at_work())
    assert not Path(f"/proc/{server}").exists()
    with contextlib.suppress(OSError):  # who reaps it is not ours
        while "State:\tZ" not in status({job}):
            time.sleep(0.01)


async def test_a_worker_is_told_nothing_but_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSTACK_SECRET", "hush")
    monkeypatch.setenv("PYTHONPATH", "/tmp")
    assert workers.environment() == {"LC_ALL": "C.UTF-8"}


async def test_an_archive_that_cannot_be_read_whole_ends_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")

    async def all_of(words: tuple[str, ...]) -> bytes:
        return b"".join([data async for data in process.output("packing", words, lambda reply: OSError(reply["error"]))])

    assert b"f" in await all_of(("export", str(tmp_path), "0"))
    with pytest.raises(OSError, match="the container's files cannot be reached: No such file"):
        await all_of(("export", str(tmp_path / "gone"), "0"))
