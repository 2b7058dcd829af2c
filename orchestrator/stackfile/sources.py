"""From files to one document: each is read and interpolated, `extends` and `include` are followed, the rest is merged.

What comes from a file in another folder has its relative paths made absolute, since they are that folder's. Every value
keeps the mark of the file that it stands in. Source: Compose Specification, 14-include.md, 13-merge.md, and the section
`extends` of 05-services.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.stackfile import envfile, marked_document, merge
from orchestrator.stackfile.interpolate import InvalidError, substitute
from orchestrator.stackfile.load_context import dotted
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem, StackFileError

SECTIONS = ("services", "networks", "volumes", "configs", "secrets", "models")
MAX_CHAIN = 64


class SourceContext(msgspec.Struct, frozen=True):
    """Where a group of files is read: *directory* is what relative paths are relative to, *variables* what `$` finds,
    *chain* the files that led here, *interpolate* whether variables are put in."""

    directory: Path
    variables: Mapping[str, str]
    chain: tuple[Path, ...] = ()
    interpolate: bool = True


def read(paths: Sequence[Path], place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    """All of *paths* as one document, later ones over earlier ones. What is wrong goes to *problems*."""
    merged: MarkedDocument | None = None
    for path in paths:
        one = _file(path, place, problems)
        _extends(one, merged, path, place, problems)
        merged = one.without_tags() if merged is None else merge.merge(merged, one)
    assert merged is not None
    return _include(merged, paths[0], place, problems)


def _file(path: Path, place: SourceContext, problems: list[Problem]) -> MarkedDocument:
    one = marked_document.read(path, _shown(path))
    if place.interpolate:
        problems += interpolate(one, place.variables)
    return one


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def interpolate(document: MarkedDocument, variables: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []

    def walk(value: Any, path: Path_) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v, (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            try:
                return substitute(value, variables)
            except InvalidError as error:
                problems.append(Problem(where=document.mark(path), what=str(error)))
        return value

    document.value = walk(document.value, ())
    return problems


def variables_of(
    directory: Path, env_files: Sequence[str], environment: Mapping[str, str], nearer: Path | None = None
) -> dict[str, str]:
    """.env of *directory*, and over it that of *nearer*, or else *env_files*, all below *environment*, which wins.

    Raises StackFileError."""
    out: dict[str, str] = {}
    own = dict.fromkeys((directory / ".env", nearer / ".env") if nearer else (directory / ".env",))
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
        there = source.value.get("services") or {}
        found = there.get(base) or {}
        if base not in there or not isinstance(found, dict):
            there = ", ".join(there) or "none"
            problems.append(_problem(document, at, f"service {base!r} is not there", f"there is: {there}"))
            return
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
    path = place.directory / Path(file).expanduser()
    if path.resolve() in place.chain or len(place.chain) > MAX_CHAIN:
        shown = " → ".join(p.name for p in (*place.chain, path.resolve()))
        problems.append(Problem(where=where, what=f"{shown} extend each other", fix="take one out"))
        return None
    if not path.is_file():
        problems.append(Problem(where=where, what=f"{path} does not exist"))
        return None
    inner = msgspec.structs.replace(place, directory=path.resolve().parent, chain=(*place.chain, path.resolve()))
    one = marked_document.read(path, _shown(path))
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
    """*document* with all that it includes; two different things of one name are an error."""
    entries = document.value.pop("include", None)
    if entries is None:
        return document
    if not isinstance(entries, list):
        problems.append(_problem(document, ("include",), "must be a list", "include: [FILE]"))
        return document
    out = document
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
            out = _joined(out, included, document.mark(at), problems)
    return out


def _included(
    body: dict[str, Any], where: Mark, main: Path, place: SourceContext, problems: list[Problem]
) -> MarkedDocument | None:
    listed = body["path"] if isinstance(body["path"], list) else [body["path"]]
    paths = [place.directory / Path(str(p)).expanduser() for p in listed]
    chain = (*(place.chain or (main.resolve(),)), paths[0].resolve())
    if paths[0].resolve() in chain[:-1]:
        shown = " → ".join(p.name for p in chain)
        problems.append(Problem(where=where, what=f"the files include each other: {shown}", fix="take one out"))
        return None
    if missing := [str(p) for p in paths if not p.is_file()]:
        problems.append(Problem(where=where, what=f"{', '.join(missing)} does not exist"))
        return None
    given = body.get("project_directory")
    directory = (place.directory / str(given)).resolve() if given else paths[0].resolve().parent
    env = body.get("env_file") or []
    files = [str(place.directory / str(f)) for f in (env if isinstance(env, list) else [env])]
    try:
        variables = variables_of(directory, files, place.variables)
        inner = SourceContext(directory, variables, chain, place.interpolate)
        found = read(paths, inner, problems)
    except StackFileError as error:
        problems += [
            Problem(where=p.where, what=p.what, why=f"{p.why} (included at {where})".strip(), fix=p.fix) for p in error.problems
        ]
        return None
    if directory != place.directory:
        _absolute(found.value, directory)
    own: dict[Path_, Mapping[str, str]] = {
        (section, name): variables for section in ("configs", "secrets") for name in found.value.get(section) or ()
    }
    return MarkedDocument(found.value, found.marks, variables={**own, **found.variables})


def _joined(base: MarkedDocument, included: MarkedDocument, where: Mark, problems: list[Problem]) -> MarkedDocument:
    value = dict(base.value)
    marks = dict(base.marks)
    for section in SECTIONS:
        new = included.value.get(section)
        if not isinstance(new, dict):
            continue
        there = dict(value.get(section) or {})
        for name, body in new.items():
            if name in there and there[name] != body:
                problems.append(
                    Problem(
                        where=base.mark((section, name)),
                        what=dotted((section, name)),
                        why=f"is something else in a file included at {where} ({included.mark((section, name))})",
                        fix="give one of the two another name",
                    )
                )
                continue
            there[name] = body
            marks.update({p: m for p, m in included.marks.items() if p[:2] == (section, name)})
        value[section] = there
    return MarkedDocument(value, marks, variables={**base.variables, **included.variables})


# --- paths -------------------------------------------------------------------------------------------------------------


def _absolute(document: dict[str, Any], directory: Path) -> None:
    """Make the relative paths of *document* those of *directory*, in place."""

    def at(text: Any) -> Any:
        if not isinstance(text, str) or "://" in text or text.startswith(("/", "~", "git@", "service:")):
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
