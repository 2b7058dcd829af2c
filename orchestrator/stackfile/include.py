"""`include`: other files, below the one that names them. Source: Compose Specification, 14-include.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.stackfile import merge
from orchestrator.stackfile.absolute_paths import absolute
from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.load_context import dotted
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem, StackFileError
from orchestrator.stackfile.source_context import SourceContext, located, problem
from orchestrator.stackfile.variables import variables_of

SECTIONS = ("services", "networks", "volumes", "configs", "secrets", "models")


Read = Callable[[Sequence[Path], SourceContext, list[Problem]], MarkedDocument]
"""Reads files as one document: those that are included are read as the ones that include them."""


def included(document: MarkedDocument, main: Path, place: SourceContext, problems: list[Problem], read: Read) -> MarkedDocument:
    """*document*, laid over all that it includes; of two that are included the later lies above."""
    if "include" not in document.value:
        return document
    entries = document.value["include"]
    document = document.with_value({k: v for k, v in document.value.items() if k != "include"})
    if entries is None:
        return document
    if not isinstance(entries, list):
        problems.append(problem(document, ("include",), "must be a list", "include: [FILE]"))
        return document
    below: MarkedDocument | None = None
    for number, entry in enumerate(entries):
        at: Path_ = ("include", number)
        body = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(body, dict) or not body.get("path"):
            problems.append(problem(document, at, "must be a path, or a mapping with path"))
            continue
        unknown = body.keys() - {"path", "project_directory", "env_file"}
        problems += [problem(document, (*at, k), "no such key", "path, project_directory, env_file") for k in sorted(unknown)]
        found = _read_entry(body, document.mark(at), main, place, problems, read)
        if found is not None:
            below = found if below is None else _joined(below, found, document.mark(at))
    return document if below is None else _over(document, below)


def _over(document: MarkedDocument, below: MarkedDocument) -> MarkedDocument:
    """*document* over what it includes; its tags go on to what files before it say."""
    both = merge.merge(below, document)
    return MarkedDocument(both.value, both.marks, document.resets, document.overrides, both.variables, both.notes)


def _read_entry(
    body: dict[str, Any], where: Mark, main: Path, place: SourceContext, problems: list[Problem], read: Read
) -> MarkedDocument | None:
    """The document of one entry of `include`; None where it cannot be read, which is a problem then."""
    listed = body["path"] if isinstance(body["path"], list) else [body["path"]]
    sought = [located(str(p), where, place, problems) for p in listed]
    paths = [p for p in sought if p is not None]
    if len(paths) < len(sought):
        return None
    chain = (*(place.chain or (main.resolve(),)), paths[0].resolve())
    if paths[0].resolve() in chain[:-1]:
        names = " → ".join(p.name for p in chain)
        problems.append(Problem(where=where, what=f"the files include each other: {names}", fix="take one out"))
        return None
    given = body.get("project_directory")
    directory = absolute_path(str(given), place.directory) if given else absolute_path(paths[0]).parent
    env = body.get("env_file") or []
    env_files = [str(place.directory / str(f)) for f in (env if isinstance(env, list) else [env])]
    try:
        variables = variables_of(directory, env_files, place.variables)
        inner = msgspec.structs.replace(place, directory=directory, variables=variables, chain=chain)
        found = read(paths, inner, problems)
    except StackFileError as error:
        problems += [
            Problem(where=p.where, what=p.what, why=f"{p.why} (included at {where})".strip(), fix=p.fix) for p in error.problems
        ]
        return None
    if directory != place.directory:
        found = found.with_value(absolute(found.value, directory))
    own: dict[Path_, Mapping[str, str]] = {
        (section, name): variables for section in ("services", "configs", "secrets") for name in found.value.get(section) or ()
    }
    resources = {section: found.value[section] for section in SECTIONS if isinstance(found.value.get(section), dict)}
    return MarkedDocument(resources, found.marks, variables={**own, **found.variables}, notes=found.notes)


def _joined(base: MarkedDocument, included: MarkedDocument, where: Mark) -> MarkedDocument:
    """*included* over *base*, both of which are included: an object that both define differently is a problem."""
    notes = [
        Problem(
            where=where,
            what=dotted((section, name)),
            why="is in two included files "
            f"({base.mark((section, name))}, {included.mark((section, name))}): the later is laid over the earlier",
        )
        for section in SECTIONS
        for name, body in (included.value.get(section) or {}).items()
        if name in (base.value.get(section) or {}) and base.value[section][name] != body
    ]
    both = merge.merge(base, included)
    return MarkedDocument(both.value, both.marks, variables=both.variables, notes=(*both.notes, *notes))
