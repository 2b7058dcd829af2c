"""The git program, with the user's own credentials and settings. Source: git(1); git-read-tree(1); git-checkout-index(1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from orchestrator.errors import PystackError


def git(folder: Path, *words: str, **variables: str) -> str:
    """The output of `git *words*` in *folder*, with *variables* in its environment. It runs no hook of the repository, and asks
    nothing on the terminal. Raises PystackError."""
    safe = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "advice.detachedHead=false")
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **variables}
    try:
        done = subprocess.run(["git", *safe, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PystackError("a git repository needs the git program: `apt-get install git`") from None
    if done.returncode:
        lines = [line.removeprefix("fatal: ") for line in done.stderr.splitlines() if line.strip()]
        raise PystackError(f"git {words[0]}: {'; '.join(lines[-3:]) or f'exit status {done.returncode}'}")
    return done.stdout.strip()


def check_out(repository: Path, commit: str, folder: Path) -> None:
    """Write the files of *commit* to the empty *folder*; *repository* is a bare one, or the .git of a working copy, whose own
    index is left alone. Raises PystackError."""
    tree = {"GIT_DIR": str(repository), "GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": str(folder.parent / "index")}
    git(folder, "read-tree", commit, **tree)
    git(folder, "checkout-index", "--all", **tree)
