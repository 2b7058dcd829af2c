"""Runs the git program within bounds of time, memory and output, on repositories of strangers.

It reads only the caller's configuration, runs no hook of the repository, and never prompts. Source: git(1), GIT_*
environment variables; setrlimit(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

MEMORY = 4 << 30
"""Bytes of address space of a git process: an object can claim any size."""
ERROR_BYTES = 1 << 16
"""The end of standard error that is kept."""


class GitLimits(NamedTuple):
    """*timeout_s*: when a command is killed. *file_bytes*: the size of a file that it may write, 0 sets no limit.
    *output_bytes*: the length of its output; *entries*: how many NUL-terminated entries that may have: a few trees that contain
    each other many times over are billions."""

    timeout_s: float
    file_bytes: int = 0
    output_bytes: int = 64 << 20
    entries: int = 100_000


class GitProgramError(Exception):
    """A git command did not succeed; *words* are its own, without `git`."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__(" ".join(words))
        self.words = words

    @property
    def command(self) -> str:
        """The name of the command: "fetch"."""
        words = list(self.words)
        while words[0] == "-c":
            words = words[2:]
        return words[0]


class GitMissingError(GitProgramError):
    """The git program is not installed."""


class GitTimeoutError(GitProgramError):
    """The command did not end in time."""


class GitOutputError(GitProgramError):
    """Its output is longer than allowed, or has more entries."""


class GitFailedError(GitProgramError):
    """It ended with *status* (negative: by that signal); *lines* are those of the end of its standard error, without empty
    ones."""

    def __init__(self, words: tuple[str, ...], status: int, lines: list[str]) -> None:
        super().__init__(words)
        self.status = status
        self.lines = lines

    @property
    def is_too_large(self) -> bool:
        """Whether it would have written a file larger than its limit."""
        texts = ("File size limit", "signal 25", "File too large")
        return self.status == -signal.SIGXFSZ or any(text in line for line in self.lines for text in texts)


def environment(protocols: str, config: str = "/dev/null") -> dict[str, str]:
    """The environment of a git command that speaks *protocols* ("https:ssh") only, and reads the file *config* only."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": config,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


async def run(words: tuple[str, ...], folder: Path, variables: Mapping[str, str], limits: GitLimits) -> str:
    """The standard output of `git *words*` in *folder*, with the environment *variables*. Raises GitProgramError."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if limits.file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))

    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            "git",
            *words,
            cwd=folder,
            env=dict(variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limit,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except FileNotFoundError:
        raise GitMissingError(words) from None
    except asyncio.CancelledError:
        # asyncio itself would kill git only, and wait for what that has started, which holds the pipes
        await _kill(await starting)
        raise
    try:
        async with asyncio.timeout(limits.timeout_s):
            out, err = await _outputs(process, words, limits)
    except BaseException as error:
        await _kill(process)
        if isinstance(error, TimeoutError):
            raise GitTimeoutError(words) from None
        raise
    if process.returncode:
        lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
        raise GitFailedError(words, process.returncode, lines)
    return out.decode(errors="replace")


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill *process* with all that it has started, and drop its output until it ends: asyncio does not notice the end of a
    process with unread output."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        while stream and await stream.read(1 << 16):
            pass
    await process.wait()


async def _outputs(process: asyncio.subprocess.Process, words: tuple[str, ...], limits: GitLimits) -> tuple[bytes, bytes]:
    """All of standard output, and the end of standard error. Raises GitOutputError."""
    assert process.stdout
    assert process.stderr

    async def read(stream: asyncio.StreamReader, most: int, *, cut: bool) -> bytes:
        found, entries = bytearray(), 0
        while data := await stream.read(1 << 16):
            found += data
            entries += data.count(0)
            if len(found) > most or entries > limits.entries:
                if not cut:
                    raise GitOutputError(words)
                del found[:-most]
        return bytes(found)

    reading = [
        asyncio.ensure_future(read(process.stdout, limits.output_bytes, cut=False)),
        asyncio.ensure_future(read(process.stderr, ERROR_BYTES, cut=True)),
    ]
    try:
        out, err = await asyncio.gather(*reading)
    finally:
        for task in reading:  # a stream has one reader at a time
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    await process.wait()
    return out, err
