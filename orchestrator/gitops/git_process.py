"""Runs the git program for one repository folder, with our configuration only and within bounds of time and size.

git speaks only https, http, ssh and file, and never prompts. The process itself is `agent/contract/git_program.py`'s. Source:
git(1), GIT_* environment variables; git-config(1), safe.directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agent.contract import git_program
from agent.contract.git_program import GitFailedError, GitLimits, GitMissingError, GitOutputError, GitTimeoutError
from orchestrator.errors import PystackError

FETCH_S = 300.0
QUICK_S = 60.0
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
    limits = GitLimits(timeout_s, file_bytes=largest)
    try:
        return await git_program.run(words, Path(environment.get("GIT_WORK_TREE", "/")), environment, limits)
    except GitMissingError:
        raise GitError("git is not installed on the server: `apt-get install git`") from None
    except GitTimeoutError as error:
        raise GitError(f"git {error.command}", f"it did not end within {timeout_s:.0f} s") from None
    except GitOutputError:
        most = f"{limits.entries} files and folders, or {limits.output_bytes >> 20} MiB of their names"
        raise GitError(f"the commit has more than {most}") from None
    except GitFailedError as error:
        raise _failure(error, largest) from None


def _environment(folder: Path) -> dict[str, str]:
    config = folder.parent / "gitconfig"
    if not config.exists() or config.read_text() != CONFIG:
        config.write_text(CONFIG)
    return git_program.environment("https:http:ssh:file", str(config)) | {
        "GIT_DIR": str(folder),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
    }


def _failure(error: GitFailedError, largest: int) -> GitError:
    if largest and error.is_too_large:
        return GitError(f"the repository is larger than {largest >> 20} MiB (--max-size)")
    problems = [line for line in error.lines if _PROBLEM_LINE.search(line)] or error.lines[-3:]
    plain = (printable(line.removeprefix("fatal: ").removeprefix("error: ")) for line in problems[:3])
    reason = "; ".join(dict.fromkeys(plain))
    return GitError(f"git {error.command}", reason or f"exit status {error.status}")
