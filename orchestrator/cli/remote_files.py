"""Stack files of git repositories and of registries, fetched to this user's cache, where their relative paths lead too.

Each commit and each artifact has a folder of its own below ~/.cache/pystack/remote, which nothing changes once it is there.
Source: docs.docker.com/compose/how-tos/multiple-compose-files/include; XDG Base Directory Specification.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from orchestrator.cli.git_command import check_out, git
from orchestrator.errors import PystackError
from orchestrator.stackfile import naming
from orchestrator.stackfile.remote import OCI

if TYPE_CHECKING:
    from agent.build.contexts import Repository

COMMIT = 40
"""Hex digits of a whole commit's name."""


def fetch(text: str) -> Path:
    """The local copy of the stack file that *text* names: oci://REGISTRY/NAME[:TAG], or an address of a git repository with
    #REF:PATH. Raises PystackError."""
    if text.startswith(OCI):
        return _artifact(text.removeprefix(OCI))
    from agent.build.contexts import repository
    from agent.errors import AgentError

    try:
        found = repository(text)
    except AgentError as error:
        raise PystackError(str(error)) from None
    if found is None:
        raise PystackError(
            "it is neither a git repository (https://HOST/NAME.git#REF:PATH) nor an artifact (oci://REGISTRY/NAME)"
        )
    return _stack_file(_checked_out(found), found)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pystack" / "remote"


def _artifact(name: str) -> Path:
    from orchestrator.cli import stack_artifact

    digest = stack_artifact.digest_of(name)
    title = PurePosixPath(name.partition("@")[0]).name.partition(":")[0]
    place = _cache() / digest.removeprefix("sha256:") / title
    if not place.is_dir():
        pinned = f"{name.partition('@')[0]}@{digest}"
        with _NewFolder(place) as made:
            stack_artifact.download(pinned, made)
    return place / stack_artifact.MAIN


class _NewFolder:
    """A folder that is at *place* once the block ended well, and nowhere where it did not."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> Path:
        self.place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = tempfile.TemporaryDirectory(dir=self.place.parent.parent)
        made = Path(self.folder.name) / "made"
        made.mkdir()
        return made

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                (Path(self.folder.name) / "made").rename(self.place)
        except OSError:
            if not self.place.is_dir():  # another client was as quick
                raise
        finally:
            self.folder.cleanup()


def _checked_out(repo: Repository) -> Path:
    """The files of the commit that *repo* names; the repository's objects are kept beside them."""
    objects = _cache() / "git" / hashlib.sha256(repo.url.encode()).hexdigest()
    if not (objects / "HEAD").is_file():
        with _NewFolder(objects) as made:
            git(made, "init", "--quiet", "--bare", "--template=")
    known = len(repo.ref) == COMMIT and _has(objects, repo.ref)
    if not known:
        git(objects, "fetch", "--quiet", "--depth=1", "--no-tags", "--", repo.url, repo.ref or "HEAD")
    commit = git(objects, "rev-parse", "--verify", f"{repo.ref if known else 'FETCH_HEAD'}^{{commit}}")
    place = _cache() / commit / PurePosixPath(repo.url.rstrip("/").replace(":", "/")).name.removesuffix(".git")
    if not place.is_dir():
        with _NewFolder(place) as made:
            check_out(objects, commit, made)
    return place


def _has(objects: Path, commit: str) -> bool:
    try:
        git(objects, "cat-file", "-e", f"{commit}^{{tree}}")
    except PystackError:
        return False
    return True


def _stack_file(place: Path, repo: Repository) -> Path:
    """The stack file of a commit: the one that *repo* names, or that of the folder that it names. Raises PystackError."""
    path = (place / repo.folder).resolve()
    if not path.is_relative_to(place.resolve()):
        raise PystackError(f"{repo.folder} leads out of the repository")
    if path.is_file():
        return path
    for name in naming.NAMES:
        if (path / name).is_file():
            return path / name
    where = f"{repo.url}{f', folder {repo.folder}' if repo.folder else ''}"
    raise PystackError(f"no stack file in {where}: one of {', '.join(naming.NAMES[:4])}, or #REF:PATH")
