"""Where a group of files is read, and how the files that they name are found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from orchestrator.errors import PystackError
from orchestrator.stackfile.load_context import dotted
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem
from orchestrator.stackfile.remote import Fetch, is_remote


class SourceContext(msgspec.Struct, frozen=True):
    """Where a group of files is read: *directory* is what relative paths are relative to, *variables* what `$` finds,
    *chain* the files that led here, *interpolate* whether variables are put in. *fetch* brings files that lie
    elsewhere; without it they are a problem."""

    directory: Path
    variables: Mapping[str, str]
    chain: tuple[Path, ...] = ()
    interpolate: bool = True
    fetch: Fetch | None = None


def shown(path: Path) -> str:
    """*path* as messages show it: relative where it lies below the working directory."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def located(text: str, where: Mark, place: SourceContext, problems: list[Problem]) -> Path | None:
    """The file that *text* names, fetched where it lies elsewhere. None where there is none, which is then a problem."""
    if is_remote(text):
        if place.fetch is None:
            fix = "keep a copy of the file beside this one"
            problems.append(Problem(where=where, what=text, why="files that lie elsewhere are not fetched here", fix=fix))
            return None
        try:
            return place.fetch(text)
        except PystackError as error:
            problems.append(Problem(where=where, what=text, why=str(error)))
            return None
    path = place.directory / Path(text).expanduser()
    if path.is_file():
        return path
    problems.append(Problem(where=where, what=f"{path} does not exist"))
    return None


def problem(document: MarkedDocument, path: Path_, why: str, fix: str = "") -> Problem:
    """A problem at *path* of *document*."""
    return Problem(where=document.mark(path), what=dotted(path), why=why, fix=fix)
