"""Waiting for folders to change: at once when they do, and without a look at them when they do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.containers import logs
from agent.containers.watch import FolderWatch

LONG_S = 30.0
"""Far below the time after which a folder is looked at without a change."""


def instances() -> int:
    """How many inotify descriptors this process has."""
    count = 0
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(name.readlink()) == "anon_inode:inotify"
    return count


def folders(tmp_path: Path, count: int) -> list[Path]:
    made = [tmp_path / str(n) for n in range(count)]
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.asyncio
async def test_all_folders_share_one_descriptor_and_each_watch_rings_for_its_own(tmp_path: Path) -> None:
    before = instances()
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(FolderWatch(folder)) for folder in (*folders(tmp_path, 200), tmp_path / "7")]
        assert instances() == before + 1
        waiting = [asyncio.create_task(watch.changed()) for watch in watches]
        await asyncio.sleep(0)
        (tmp_path / "7" / "log").write_bytes(b"one\n")
        rung, _ = await asyncio.wait(waiting, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(waiting[7], waiting[200])
        assert rung <= {waiting[7], waiting[200]}
        assert sum(task.done() for task in waiting) == 2
        for task in waiting:
            task.cancel()
    assert instances() == before


@pytest.mark.asyncio
async def test_a_change_between_two_waits_is_not_lost(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch:
        (tmp_path / "log").write_bytes(b"one\n")
        async with asyncio.timeout(LONG_S):
            await watch.changed()


@pytest.mark.asyncio
async def test_a_folder_that_goes_ends_the_wait(tmp_path: Path) -> None:
    (folder,) = folders(tmp_path, 1)
    with FolderWatch(folder) as watch:
        waiting = asyncio.create_task(watch.changed())
        await asyncio.sleep(0)
        folder.rmdir()
        async with asyncio.timeout(LONG_S):
            await waiting


@pytest.mark.asyncio
async def test_a_quiet_log_is_read_when_it_grows_and_not_before(tmp_path: Path) -> None:
    path, looks, over = tmp_path / "log", 0, False
    path.write_bytes(b"2026-01-02T03:04:05Z stdout F one\n")

    def ended() -> bool:
        nonlocal looks
        looks += 1
        return over

    async def lines() -> AsyncIterator[bytes]:
        async for line in logs.read(path, follow=True, ended=ended):
            if line is not logs.IDLE:
                yield line.text

    following = lines()
    assert await anext(following) == b"one\n"
    more = asyncio.ensure_future(anext(following))
    for _ in range(100):
        await asyncio.sleep(0)
    quiet = looks
    with path.open("ab") as file:
        file.write(b"2026-01-02T03:04:06Z stdout F two\n")
    async with asyncio.timeout(LONG_S):
        assert await more == b"two\n"
    over = True
    (tmp_path / "record.json").write_bytes(b"{}")  # as the agent does when the container ends
    async with asyncio.timeout(LONG_S):
        assert [text async for text in following] == []
    assert looks <= quiet + 6, "it looks at a quiet log"
