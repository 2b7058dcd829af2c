"""`extends`: a service is laid over another one, of its file or of another. Source: Compose Specification, 05-services.md,
"extends"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from orchestrator.stackfile import merge, yaml_documents
from orchestrator.stackfile.absolute_paths import absolute
from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.interpolation import interpolated
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem
from orchestrator.stackfile.source_context import SourceContext, located, problem, shown

MAX_CHAIN = 64
"""Files that extend each other."""


def extended(
    document: MarkedDocument, below: MarkedDocument | None, path: Path, place: SourceContext, problems: list[Problem]
) -> MarkedDocument:
    """*document* with each service that extends another replaced by what both say. *path* is its file, *below* the document
    of the files before it. What is wrong goes to *problems*."""
    if not isinstance(document.value.get("services"), dict):
        return document
    work = _Extending(document, below, path, place, problems)
    for name in list(work.services):
        work.resolve(name, ())
    return msgspec.structs.replace(document, value={**document.value, "services": work.services}, marks=work.marks)


class _Extending:
    """The services of one document while they are resolved, each once, and where what they say stands."""

    def __init__(
        self,
        document: MarkedDocument,
        below: MarkedDocument | None,
        path: Path,
        place: SourceContext,
        problems: list[Problem],
    ) -> None:
        self.document, self.below, self.path, self.place, self.problems = document, below, path, place, problems
        self.services: dict[str, Any] = dict(document.value["services"])
        self.marks = dict(document.marks)
        self.done: set[str] = set()

    def resolve(self, name: str, trail: tuple[str, ...]) -> None:
        """Replace the service *name*, after those that it extends; *trail* are those that wait for it."""
        body = self.services.get(name)
        if name in self.done or not isinstance(body, dict) or "extends" not in body:
            return
        at: Path_ = ("services", name, "extends")
        if name in trail:
            return self._problem(at, f"{' → '.join((*trail, name))} extend each other", "take one out")
        spec = body["extends"]
        file, base = (spec.get("file"), spec.get("service")) if isinstance(spec, dict) else (None, spec)
        if not isinstance(base, str):
            return self._problem(at, "must name a service", "extends: {service: NAME, file: FILE}")
        source = self._source(None if file is None else str(file), base, at, (*trail, name))
        self.done.add(name)
        if source is None:
            return None
        there = source.value.get("services")
        there = there if isinstance(there, dict) else {}
        if not isinstance(there.get(base) or {}, dict) or base not in there:
            return self._problem(at, f"service {base!r} is not there", f"there is: {', '.join(there) or 'none'}")
        for key in spec.keys() - {"service", "file"} if isinstance(spec, dict) else ():
            if not key.startswith("x-"):
                self._problem((*at, key), "no such key", "service, file")
        return self._lay_over(name, source, base, there[base] or {})

    def _source(self, file: str | None, base: str, at: Path_, trail: tuple[str, ...]) -> MarkedDocument | None:
        """The document that has the service *base*, resolved; None where there is none, which is a problem then."""
        if file is not None and (self.place.directory / file).resolve() != self.path.resolve():
            return _foreign(file, base, self._present().mark(at), self.place, self.problems)
        self.resolve(base, trail)
        return self._present() if base in self.services or self.below is None else self.below

    def _present(self) -> MarkedDocument:
        """The document as far as it is resolved."""
        value = {**self.document.value, "services": self.services}
        return msgspec.structs.replace(self.document, value=value, marks=self.marks)

    def _lay_over(self, name: str, source: MarkedDocument, base: str, found: dict[str, Any]) -> None:
        """The service *name* over *found*, as a later file would be, both under the one name."""
        place: Path_ = ("services", name)
        rest = {k: v for k, v in self.services[name].items() if k != "extends"}
        lower = source.rebase(("services", base), place, {"services": {name: found}})
        upper = self._present().rebase(place, place, {"services": {name: rest}})
        both = merge.merge(lower, upper)
        self.marks |= {p: m for p, m in both.marks.items() if p[:2] == place}
        self.services[name] = both.value["services"][name]

    def _problem(self, at: Path_, why: str, fix: str) -> None:
        self.problems.append(problem(self._present(), at, why, fix))


def _foreign(file: str, base: str, where: Mark, place: SourceContext, problems: list[Problem]) -> MarkedDocument | None:
    """The document that has the service *base* of another file, its own `extends` followed, its paths absolute."""
    path = located(file, where, place, problems)
    if path is None:
        return None
    if path.resolve() in place.chain or len(place.chain) > MAX_CHAIN:
        chain = " → ".join(p.name for p in (*place.chain, path.resolve()))
        problems.append(Problem(where=where, what=f"{chain} extend each other", fix="take one out"))
        return None
    inner = msgspec.structs.replace(place, directory=absolute_path(path).parent, chain=(*place.chain, path.resolve()))
    documents = yaml_documents.read(path, shown(path))
    one = documents[0].without_tags()
    for later in documents[1:]:
        one = merge.merge(one, later)
    if isinstance(services := one.value.get("services"), dict):
        one = one.with_value({"services": _needed(services, base)})
    if place.interpolate:
        one = interpolated(one, place.variables, problems)
    one = extended(one, None, path, inner, problems)
    if inner.directory != place.directory:
        one = one.with_value(absolute(one.value, inner.directory))
    return one.without_tags()


def _needed(services: dict[str, Any], base: str) -> dict[str, Any]:
    """*base* of *services* and those that it extends: the others may need what is not here."""
    wanted, todo = set(), [base]
    while todo:
        name = todo.pop()
        if name in wanted or name not in services:
            continue
        wanted.add(name)
        spec = services[name].get("extends") if isinstance(services[name], dict) else None
        if isinstance(spec, str):
            todo.append(spec)
        elif isinstance(spec, dict) and spec.get("file") is None:
            todo.append(str(spec.get("service")))
    return {name: body for name, body in services.items() if name in wanted}
