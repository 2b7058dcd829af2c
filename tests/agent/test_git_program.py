"""git under limits, on real repositories."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.contract import git_program
from agent.contract.git_program import GitLimits
from agent.contract.processes import start_time

ENVIRONMENT = git_program.environment("file")
QUICK = GitLimits(timeout_s=60.0)


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    await git_program.run(("init", "--quiet", "--template="), folder, ENVIRONMENT, QUICK)
    return folder


async def _ended(pid: int) -> None:
    async with asyncio.timeout(60):
        while start_time(pid):
            await asyncio.sleep(0.01)


async def test_its_output_is_returned(repository: Path) -> None:
    assert (await git_program.run(("rev-parse", "--is-bare-repository"), repository, ENVIRONMENT, QUICK)).strip() == "false"


async def test_the_users_own_settings_are_not_read(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Somebody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(git_program.GitFailedError) as caught:
        await git_program.run(("config", "user.name"), repository, git_program.environment("file"), QUICK)
    assert (caught.value.status, caught.value.lines, caught.value.command) == (1, [], "config")


async def test_an_error_has_its_last_lines_and_the_command_after_its_settings(repository: Path) -> None:
    with pytest.raises(git_program.GitFailedError) as caught:
        await git_program.run(("-c", "core.pager=cat", "rev-parse", "--verify", "gone"), repository, ENVIRONMENT, QUICK)
    assert caught.value.command == "rev-parse"
    assert caught.value.lines == ["fatal: Needed a single revision"]
    assert not caught.value.is_too_large


async def test_a_protocol_that_is_not_allowed_is_not_spoken(repository: Path) -> None:
    with pytest.raises(git_program.GitFailedError) as caught:
        await git_program.run(("fetch", str(repository)), repository, git_program.environment("https"), QUICK)
    assert "transport 'file' not allowed" in caught.value.lines[0]


async def test_a_command_that_hangs_is_killed_with_all_that_it_started(repository: Path, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    alias = f"alias.hang=!echo $$ > {marker}; sleep 1000"
    with pytest.raises(git_program.GitTimeoutError):
        await git_program.run(("-c", alias, "hang"), repository, ENVIRONMENT, GitLimits(timeout_s=2.0))
    await _ended(int(marker.read_text()))


async def test_cancelling_ends_it_at_any_moment_with_all_that_it_started(repository: Path, tmp_path: Path) -> None:
    for number in range(10):  # in some of these asyncio is still connecting the pipes
        marker = tmp_path / f"pid{number}"
        alias = f"alias.hang=!echo $$ > {marker}; sleep 1000"
        task = asyncio.create_task(git_program.run(("-c", alias, "hang"), repository, ENVIRONMENT, QUICK))
        async with asyncio.timeout(60):
            while not (marker.exists() and marker.read_text().strip()):
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _ended(int(marker.read_text()))


async def test_output_and_files_are_bounded(repository: Path) -> None:
    endless = ("-c", "alias.talk=!yes", "talk")
    with pytest.raises(git_program.GitOutputError):
        await git_program.run(endless, repository, ENVIRONMENT, GitLimits(timeout_s=60.0, output_bytes=1 << 20))
    entries = ("-c", "alias.list=!head -c 100000 /dev/zero", "list")
    with pytest.raises(git_program.GitOutputError):
        await git_program.run(entries, repository, ENVIRONMENT, GitLimits(timeout_s=60.0, entries=1000))
    (repository / "large").write_bytes(os.urandom(1 << 20))
    with pytest.raises(git_program.GitFailedError) as caught:
        await git_program.run(("add", "large"), repository, ENVIRONMENT, GitLimits(timeout_s=60.0, file_bytes=1 << 16))
    assert caught.value.is_too_large, (caught.value.status, caught.value.lines)


async def test_there_may_be_no_git(repository: Path) -> None:
    with pytest.raises(git_program.GitMissingError):
        await git_program.run(("version",), repository, ENVIRONMENT | {"PATH": "/nonexistent"}, QUICK)
