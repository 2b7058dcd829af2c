"""A commit's files in place of those that lie here: `plan --from-git REF`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.stackfile.model import Stack


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PystackError("--from-git needs the git program") from None
    if done.returncode:
        why = done.stderr.strip().removeprefix("fatal: ").replace("Needed a single revision", f"there is no commit {words[-1]}")
        raise PystackError(f"--from-git: {why or 'git says no'}")
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(ref: str) -> Iterator[tuple[Path, Path]]:
    """Work in the commit's tree, in the same folder of it; yields the tree and the place that it stands for.

    Raises PystackError where there is no such commit, or the folder is not in it."""
    top = Path(_git("rev-parse", "--show-toplevel")).resolve()
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    here = Path.cwd().resolve()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / top.name  # the folder's name is the stack's
        tree.mkdir()
        index = {**os.environ, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        for words in (["read-tree", commit], ["checkout-index", "--all", f"--prefix={tree}/"]):
            done = subprocess.run(["git", "-C", str(top), *words], env=index, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PystackError(f"--from-git {ref}: {done.stderr.strip()}")
        inside = tree / here.relative_to(top)
        if not inside.is_dir():
            raise PystackError(f"commit {commit[:12]} has no folder {here.relative_to(top)}")
        _decrypt(tree)
        os.chdir(inside)
        try:
            yield tree, top
        finally:
            os.chdir(here)


def _decrypt(tree: Path) -> None:
    """Open the tree's encrypted files where there is a key, named as sops has it named; the server does so with its own."""
    content = os.environ.get("SOPS_AGE_KEY", "").encode()
    if not content and (file := os.environ.get("SOPS_AGE_KEY_FILE", "")):
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise PystackError(f"SOPS_AGE_KEY_FILE: {file}: {error.strerror}") from None
    if content:
        from orchestrator.gitops.decrypt import decrypt

        decrypt(tree, content)


def rebase_paths(stack: Stack, tree: Path, top: Path) -> Stack:
    """*stack* with the paths that its files would have in the working copy: so the commit will be applied."""
    import msgspec

    raw = msgspec.json.encode(stack).replace(str(tree).encode(), str(top).encode())
    return msgspec.json.decode(raw, type=type(stack))
