"""From files to one document: each is read, interpolated, extended and laid over what it includes, and all are merged.

A file may be several YAML documents: they are laid over each other in turn, as files are. What comes from a file in another
folder has its relative paths made absolute, since they are that folder's. Every value keeps the mark of the file that it
stands in. Source: Compose Specification, 13-merge.md, 14-include.md, and the section `extends` of 05-services.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.stackfile import merge, yaml_documents
from orchestrator.stackfile.extends import extended
from orchestrator.stackfile.include import included
from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.interpolation import interpolated
from orchestrator.stackfile.marked_document import MarkedDocument
from orchestrator.stackfile.problem import Mark, Problem
from orchestrator.stackfile.source_context import SourceContext, shown
from orchestrator.stackfile.unicity import once

File = tuple[Path, list[MarkedDocument]]
"""A file, and the documents in it."""


def files(paths: Sequence[Path]) -> list[File]:
    """*paths*, read as they stand. Raises StackFileError."""
    return [(path, yaml_documents.read(path, shown(path))) for path in paths]


def read(paths: Sequence[Path], place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """All of *paths* as one document. What is wrong goes to *problems*."""
    return combined(files(paths), place, problems)


def combined(opened: Iterable[File], place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """All of *opened* as one document, later ones over earlier ones. What is wrong goes to *problems*."""
    merged: MarkedDocument | None = None
    for path, documents in opened:
        for document in documents:
            one = interpolated(document, place.variables, problems) if place.interpolate else document
            one = extended(one, merged, path, place, problems)
            one = included(once(one, report=True), path, place, problems, read)
            merged = one.without_tags() if merged is None else merge.merge(merged, one)
    assert merged is not None
    return merged


def name_of(opened: Sequence[File], variables: Mapping[str, str]) -> tuple[Any, Mark]:
    """The last `name:` of *opened*, with *variables* put in, and where it stands; None where none says one."""
    found: tuple[Any, Mark] = (None, Mark("", 0, 0))
    for _, documents in opened:
        for one in documents:
            if isinstance(one.value, dict) and one.value.get("name") is not None:
                found = one.value["name"], one.mark(("name",))
    if isinstance(found[0], str):
        try:
            return substitute(found[0], variables), found[1]
        except InvalidError:
            pass  # reported where the document is read
    return found
