"""From files to one document: each is read and interpolated, `extends` and `include` are followed, the rest is merged.

A file may be several YAML documents: they are laid over each other in turn, as files are. What a file includes lies below it.

What comes from a file in another folder has its relative paths made absolute, since they are that folder's. Every value
keeps the mark of the file that it stands in. Source: Compose Specification, 14-include.md, 13-merge.md, and the section
`extends` of 05-services.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import PystackError
from orchestrator.stackfile import envfile, marked_document, merge
from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.load_context import dotted
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.mount_text import is_windows
from orchestrator.stackfile.problem import Mark, Problem, StackFileError
from orchestrator.stackfile.remote import Fetch, is_remote
from orchestrator.stackfile.unicity import once

SECTIONS = ("services", "networks", "volumes", "configs", "secrets", "models")
MAX_CHAIN = 64


class SourceContext(msgspec.Struct, frozen=True):
    """Where a group of files is read: *directory* is what relative paths are relative to, *variables* what `$` finds,
    *chain* the files that led here, *interpolate* whether variables are put in. *fetch* brings files that lie
    elsewhere; without it they are a problem."""

    directory: Path
    variables: Mapping[str, str]
    chain: tuple[Path, ...] = ()
    interpolate: bool = True
    fetch: Fetch | None = None


File = tuple[Path, list[MarkedDocument]]
"""A file, and the documents in it."""


def files(paths: Sequence[Path]) -> list[File]:
    """*paths*, read as they stand. Raises StackFileError."""
    return [(path, marked_document.read(path, _shown(path))) for path in paths]


def read(paths: Sequence[Path], place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """All of *paths* as one document. What is wrong goes to *problems*."""
    return combined(files(paths), place, problems)


def combined(opened: Iterable[File], place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """All of *opened* as one document, later ones over earlier ones. What is wrong goes to *problems*."""
    merged: MarkedDocument | None = None
    for path, documents in opened:
        for one in documents:
            if place.interpolate:
                problems += interpolate(one, place.variables)
            _extends(one, merged, path, place, problems)
            one = _include(once(one, told=True), path, place, problems)
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
            pass  # told where the document is read
    return found


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def interpolate(document: MarkedDocument, variables: Mapping[str, str]) -> list[Problem]:
    """Put *variables* into *document*. What cannot be is returned; what is not set becomes a note of the document."""
    problems: list[Problem] = []
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
        blank.setdefault(name, Problem(where=document.mark(path), what=f"variable {name} is not set", why="it is blank"))

    document.value = walk(document.value, ())
    document.notes = (*document.notes, *blank.values())
    return problems


def variables_of(
    directory: Path, env_files: Sequence[str], environment: Mapping[str, str], nearer: Path | None = None
) -> dict[str, str]:
    """.env of *directory*, and over it that of *nearer*, or else *env_files*, all below *environment*, which wins.

    Raises StackFileError."""
    out: dict[str, str] = {}
    own = dict.fromkeys((directory / ".env", nearer / ".env") if nearer else (directory / ".env",))
    if environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true"):
        own = {}
    for path in [Path(f) for f in env_files] or own:
        if not env_files and not path.is_file():
            continue
        try:
            values = envfile.read(path, {**out, **environment})
        except (InvalidError, OSError) as error:
            raise StackFileError([Problem(where=Mark(str(path), 0, 0), what="cannot be read", why=str(error))]) from error
        out.update({k: v for k, v in values.items() if v is not None})
    return {**out, **environment}


# --- extends -----------------------------------------------------------------------------------------------------------


def _extends(
    document: MarkedDocument, below: MarkedDocument | None, path: Path, place: SourceContext, problems: list[Problem]
) -> None:
    """Replace each service that extends another by what both say, in *document* itself."""
    services = document.value.get("services")
    if not isinstance(services, dict):
        return
    done: set[str] = set()

    def resolve(name: str, trail: tuple[str, ...]) -> None:
        body = services.get(name)
        if name in done or not isinstance(body, dict) or "extends" not in body:
            return
        at: Path_ = ("services", name, "extends")
        if name in trail:
            problems.append(_problem(document, at, f"{' → '.join((*trail, name))} extend each other", "take one out"))
            return
        spec = body["extends"]
        file, base = (spec.get("file"), spec.get("service")) if isinstance(spec, dict) else (None, spec)
        if not isinstance(base, str):
            problems.append(_problem(document, at, "must name a service", "extends: {service: NAME, file: FILE}"))
            return
        if file is not None and (place.directory / str(file)).resolve() != path.resolve():
            source = _foreign(str(file), base, document.mark(at), place, problems)
        else:
            resolve(base, (*trail, name))
            source = document if base in services else below
        done.add(name)
        if source is None:
            return
        there = source.value.get("services")
        there = there if isinstance(there, dict) else {}
        found = there.get(base) or {}
        if base not in there or not isinstance(found, dict):
            there = ", ".join(there) or "none"
            problems.append(_problem(document, at, f"service {base!r} is not there", f"there is: {there}"))
            return
        for key in spec.keys() - {"service", "file"} if isinstance(spec, dict) else ():
            if not key.startswith("x-"):
                problems.append(_problem(document, (*at, key), "no such key", "service, file"))
        rest = {k: v for k, v in body.items() if k != "extends"}
        # laid over the base as a later file would be, both under the one name
        lower = source.rebase(("services", base), ("services", name), {"services": {name: found}})
        upper = document.rebase(("services", name), ("services", name), {"services": {name: rest}})
        both = merge.merge(lower, upper)
        document.copy_marks(("services", name), both)
        services[name] = both.value["services"][name]

    for name in list(services):
        resolve(name, ())


def _foreign(file: str, base: str, where: Mark, place: SourceContext, problems: list[Problem]) -> MarkedDocument | None:
    """The document that has the service *base* of another file, its own `extends` followed, its paths absolute."""
    path = _located(file, where, place, problems)
    if path is None:
        return None
    if path.resolve() in place.chain or len(place.chain) > MAX_CHAIN:
        shown = " → ".join(p.name for p in (*place.chain, path.resolve()))
        problems.append(Problem(where=where, what=f"{shown} extend each other", fix="take one out"))
        return None
    inner = msgspec.structs.replace(place, directory=path.resolve().parent, chain=(*place.chain, path.resolve()))
    documents = marked_document.read(path, _shown(path))
    one = documents[0].without_tags()
    for later in documents[1:]:
        one = merge.merge(one, later)
    services = one.value.get("services")
    if isinstance(services, dict):  # the others of that file are nobody's business, and may need what is not here
        wanted, todo = set(), [base]
        while todo:
            name = todo.pop()
            if name in wanted or name not in services:
                continue
            wanted.add(name)
            if not isinstance(services[name], dict):
                continue
            spec = services[name].get("extends")
            if isinstance(spec, str):
                todo.append(spec)
            elif isinstance(spec, dict) and spec.get("file") is None:
                todo.append(str(spec.get("service")))
        one.value = {"services": {n: b for n, b in services.items() if n in wanted}}
    if place.interpolate:
        problems += interpolate(one, place.variables)
    _extends(one, None, path, inner, problems)
    if inner.directory != place.directory:
        _absolute(one.value, inner.directory)
    return one.without_tags()


# --- include -----------------------------------------------------------------------------------------------------------


def _include(document: MarkedDocument, main: Path, place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """*document*, laid over all that it includes; of two that are included the later lies above."""
    if "include" not in document.value:
        return document
    entries = document.value["include"]
    document = document.with_value({k: v for k, v in document.value.items() if k != "include"})
    if entries is None:
        return document
    if not isinstance(entries, list):
        problems.append(_problem(document, ("include",), "must be a list", "include: [FILE]"))
        return document
    below: MarkedDocument | None = None
    for number, entry in enumerate(entries):
        at: Path_ = ("include", number)
        body = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(body, dict) or not body.get("path"):
            problems.append(_problem(document, at, "must be a path, or a mapping with path"))
            continue
        unknown = body.keys() - {"path", "project_directory", "env_file"}
        problems += [_problem(document, (*at, k), "no such key", "path, project_directory, env_file") for k in sorted(unknown)]
        included = _included(body, document.mark(at), main, place, problems)
        if included is not None:
            below = included if below is None else _joined(below, included, document.mark(at))
    return document if below is None else _over(document, below)


def _over(document: MarkedDocument, below: MarkedDocument) -> MarkedDocument:
    """*document* over what it includes; its tags go on to what files before it say."""
    both = merge.merge(below, document)
    return MarkedDocument(both.value, both.marks, document.resets, document.overrides, both.variables, both.notes)


def _included(
    body: dict[str, Any], where: Mark, main: Path, place: SourceContext, problems: list[Problem]
) -> MarkedDocument | None:
    listed = body["path"] if isinstance(body["path"], list) else [body["path"]]
    located = [_located(str(p), where, place, problems) for p in listed]
    paths = [p for p in located if p is not None]
    if len(paths) < len(located):
        return None
    chain = (*(place.chain or (main.resolve(),)), paths[0].resolve())
    if paths[0].resolve() in chain[:-1]:
        shown = " → ".join(p.name for p in chain)
        problems.append(Problem(where=where, what=f"the files include each other: {shown}", fix="take one out"))
        return None
    given = body.get("project_directory")
    directory = (place.directory / str(given)).resolve() if given else paths[0].resolve().parent
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
        _absolute(found.value, directory)
    own: dict[Path_, Mapping[str, str]] = {
        (section, name): variables for section in ("services", "configs", "secrets") for name in found.value.get(section) or ()
    }
    resources = {section: found.value[section] for section in SECTIONS if isinstance(found.value.get(section), dict)}
    return MarkedDocument(resources, found.marks, variables={**own, **found.variables}, notes=found.notes)


def _joined(base: MarkedDocument, included: MarkedDocument, where: Mark) -> MarkedDocument:
    """*included* over *base*, both of which are included: what both say of one thing is told."""
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


def _located(text: str, where: Mark, place: SourceContext, problems: list[Problem]) -> Path | None:
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


# --- paths -------------------------------------------------------------------------------------------------------------


def _absolute(document: dict[str, Any], directory: Path) -> None:
    """Make the relative paths of *document* those of *directory*, in place."""

    def at(text: Any) -> Any:
        if not isinstance(text, str) or is_windows(text) or is_remote(text) or text.startswith(("/", "~", "service:")):
            return text
        return str((directory / text).resolve())

    for body in (document.get("services") or {}).values():
        if isinstance(body, dict):
            _absolute_service(body, at)
    for section in ("configs", "secrets"):
        for body in (document.get(section) or {}).values():
            if isinstance(body, dict) and "file" in body:
                body["file"] = at(body["file"])


def _absolute_service(body: dict[str, Any], at: Any) -> None:
    build = body.get("build")
    if isinstance(build, str):
        body["build"] = at(build)
    elif isinstance(build, dict):
        build["context"] = at(build.get("context", "."))
        if isinstance(build.get("additional_contexts"), dict):
            build["additional_contexts"] = {k: at(v) for k, v in build["additional_contexts"].items()}
    for key in ("env_file", "label_file"):
        value = body.get(key)
        if isinstance(value, str):
            body[key] = at(value)
        elif isinstance(value, list):
            body[key] = [{**i, "path": at(i.get("path"))} if isinstance(i, dict) else at(i) for i in value]
    if isinstance(body.get("extends"), dict) and "file" in body["extends"]:
        body["extends"]["file"] = at(body["extends"]["file"])
    mounts = []
    for mount in body.get("volumes") or ():
        if isinstance(mount, str) and mount.startswith("."):
            source, colon, rest = mount.partition(":")
            mount = f"{at(source)}{colon}{rest}"
        elif isinstance(mount, dict) and mount.get("type") == "bind":
            mount = {**mount, "source": at(mount.get("source"))}
        mounts.append(mount)
    if mounts:
        body["volumes"] = mounts
    develop = body.get("develop")
    for rule in (develop.get("watch") or ()) if isinstance(develop, dict) else ():
        if isinstance(rule, dict) and "path" in rule:
            rule["path"] = at(rule["path"])


def _problem(document: MarkedDocument, path: Path_, why: str, fix: str = "") -> Problem:
    return Problem(where=document.mark(path), what=dotted(path), why=why, fix=fix)
