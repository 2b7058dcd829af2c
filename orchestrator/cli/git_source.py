"""A commit's files in place of those that lie here: `plan --from-git REF`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.git_command import check_out, git
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.stackfile.model import Stack


@contextlib.contextmanager
def checked_out(ref: str) -> Iterator[tuple[Path, Path]]:
    """Work in the commit's tree, in the same folder of it; yields the tree and the place that it stands for.

    Raises PystackError where there is no such commit, or the folder is not in it."""
    here = Path.cwd().resolve()
    top = Path(git(here, "rev-parse", "--show-toplevel")).resolve()
    try:
        commit = git(here, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    except PystackError as error:
        raise PystackError(f"--from-git: there is no commit {ref} in {top} ({error})") from None
    repository = Path(git(here, "rev-parse", "--absolute-git-dir"))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / top.name  # the folder's name is the stack's
        tree.mkdir()
        check_out(repository, commit, tree)
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
