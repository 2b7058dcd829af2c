"""Variables in the values of a document. Source: Compose Specification, 12-interpolation.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Problem


def interpolated(document: MarkedDocument, variables: Mapping[str, str], problems: list[Problem]) -> MarkedDocument:
    """*document* with *variables* put in. What cannot be goes to *problems*; what is not set becomes a note."""
    blank: dict[str, Problem] = {}

    def walk(value: Any, path: Path_) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v, (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            try:
                return substitute(value, variables, lambda name: note(name, path))
            except InvalidError as error:
                problems.append(Problem(where=document.mark(path), what=str(error)))
        return value

    def note(name: str, path: Path_) -> None:
        blank.setdefault(
            name,
            Problem(where=document.mark(path), what=f'The "{name}" variable is not set', why="Defaulting to a blank string."),
        )

    value = walk(document.value, ())
    return msgspec.structs.replace(document, value=value, notes=(*document.notes, *blank.values()))
