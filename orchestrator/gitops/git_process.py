"""Runs the git program for one repository folder, with our configuration only and within bounds of time and size.

git speaks only https, http, ssh and file, and never prompts. Source: git(1), GIT_* environment variables; git-config(1),
safe.directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import PystackError

FETCH_S = 300.0
QUICK_S = 60.0
MEMORY = 4 << 30
"""Address space of a git process: an object can claim any size."""
ENTRIES, LISTING = 100_000, 64 << 20
"""Files and folders of a commit, and bytes of their list: a few trees that contain each other many times over are billions."""
CONFIG = """[safe]
\tdirectory = *
[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\tfsmonitor = false
\tbigFileThreshold = 1m
\tpackedGitWindowSize = 16m
\tpackedGitLimit = 64m
\tprotectHFS = true
\tprotectNTFS = true
[pack]
\tthreads = 1
[gc]
\tauto = 0
[submodule]
\trecurse = false
[http]
\tlowSpeedLimit = 256
\tlowSpeedTime = 60
[fetch]
\tfsckObjects = true
[fetch "fsck"]
\tzeroPaddedFilemode = ignore
\tzeroPaddedDate = ignore
\tbadTimezone = ignore
\tmissingEmail = ignore
\tmissingSpaceBeforeEmail = ignore
\tmissingSpaceBeforeDate = ignore
\tgitmodulesParse = ignore
\tgitmodulesUrl = ignore
[gpg]
\tformat = ssh
"""
_PROBLEM_LINE = re.compile(r"^(fatal|error|ssh|remote): |^Host key|denied|failed", re.IGNORECASE)
"""Lines of git's and ssh's output that say what is wrong, among many others."""


class GitError(PystackError):
    """git failed: which command, and *reason*, in its own words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(f"{message}: {reason}" if reason else message)
        self.reason = reason


def printable(text: str) -> str:
    """*text* from a repository, short and without control characters, for a terminal."""
    text = text if len(text) <= 200 else f"{text[:199]}…"
    return "".join(c if c.isprintable() else " " for c in text)


async def run(
    folder: Path, *words: str, extra: Mapping[str, str] | None = None, timeout_s: float = QUICK_S, largest: int = 0
) -> str:
    """The standard output of `git *words*` in the bare repository *folder*, with *extra* variables in the environment.

    *largest* limits each file that git writes, in bytes; 0 sets no limit. Raises GitError."""
    environment = _environment(folder) | dict(extra or {})

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *words,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limits,
            cwd=environment.get("GIT_WORK_TREE", "/"),
        )
    except FileNotFoundError:
        raise GitError("git is not installed on the server: `apt-get install git`") from None
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await _outputs(process)
    except (TimeoutError, asyncio.CancelledError, _TooMuchError) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await _wait_ended(process)
        if isinstance(error, asyncio.CancelledError):
            raise
        if isinstance(error, _TooMuchError):
            most = f"{ENTRIES} files and folders, or {LISTING >> 20} MiB of their names"
            raise GitError(f"the commit has more than {most}") from None
        raise GitError(f"git {words[0]}", f"it did not end within {timeout_s:.0f} s") from None
    if process.returncode:
        raise _failure(words, process.returncode, err, largest)
    return out.decode(errors="replace")


def _environment(folder: Path) -> dict[str, str]:
    config = folder.parent / "gitconfig"
    if not config.exists() or config.read_text() != CONFIG:
        config.write_text(CONFIG)
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:file",
        "GIT_DIR": str(folder),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _failure(words: tuple[str, ...], status: int, err: bytes, largest: int) -> GitError:
    lines = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
    grew = any("File size limit" in line or "signal 25" in line or "File too large" in line for line in lines)
    if largest and (status == -signal.SIGXFSZ or grew):
        return GitError(f"the repository is larger than {largest >> 20} MiB (--max-size)")
    problems = [line for line in lines if _PROBLEM_LINE.search(line)] or lines[-3:]
    plain = (printable(line.removeprefix("fatal: ").removeprefix("error: ")) for line in problems[:3])
    reason = "; ".join(dict.fromkeys(plain))
    command = words[0] if words[0] != "-c" else words[2]
    return GitError(f"git {command}", reason or f"exit status {status}")


class _TooMuchError(Exception):
    """Standard output is longer than LISTING, or has more than ENTRIES files."""


async def _wait_ended(process: asyncio.subprocess.Process) -> None:
    """Read and drop the output of *process* until it ends: asyncio does not notice the end of a process with unread output."""
    for stream in (process.stdout, process.stderr):
        while stream and await stream.read(1 << 16):
            pass
    await process.wait()


async def _outputs(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """All of standard output, and the last 64 KiB of standard error. Raises _TooMuchError."""
    assert process.stdout
    assert process.stderr

    async def read(stream: asyncio.StreamReader, most: int, *, cut: bool) -> bytes:
        found, files = bytearray(), 0
        while data := await stream.read(1 << 16):
            found += data
            files += data.count(0)
            if len(found) > most or files > ENTRIES:
                if not cut:
                    raise _TooMuchError
                del found[:-most]
        return bytes(found)

    out, err = await asyncio.gather(read(process.stdout, LISTING, cut=False), read(process.stderr, 1 << 16, cut=True))
    await process.wait()
    return out, err
