"""A document's plain values that remember where they stand in their file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.stackfile.problem import Mark, Problem

Path_ = tuple[str | int, ...]


class MarkedDocument(msgspec.Struct, frozen=True):
    """*value* is the document as dicts, lists and scalars; `mark(path)` says where a path stands.

    *resets* are paths tagged `!reset`, which take away what lies below; *overrides* those tagged `!override`, which
    replace it instead of merging with it. *variables* are those that an included part was read with, by its place; *notes*
    are for its author although nothing is wrong."""

    value: Any
    marks: dict[Path_, Mark]
    resets: frozenset[Path_] = frozenset()
    overrides: frozenset[Path_] = frozenset()
    variables: Mapping[Path_, Mapping[str, str]] = msgspec.field(default_factory=dict)
    notes: tuple[Problem, ...] = ()

    def without_tags(self) -> MarkedDocument:
        """The document with what it resets taken out, as a file on its own is understood."""
        value = self.value
        for path in self.resets:
            value = without(value, path)
        return MarkedDocument(value, self.marks, variables=self.variables, notes=self.notes)

    def with_value(self, value: Any) -> MarkedDocument:
        """The same marks with another *value*."""
        return msgspec.structs.replace(self, value=value)

    def rebase(self, old: Path_, new: Path_, value: Any) -> MarkedDocument:
        """A document of *value*, with the marks and tags below *old* as those below *new*."""

        def move(path: Path_) -> Path_:
            return (*new, *path[len(old) :])

        size = len(old)
        return MarkedDocument(
            value,
            {move(p): m for p, m in self.marks.items() if p[:size] == old},
            frozenset(move(p) for p in self.resets if p[:size] == old and len(p) > size),
            frozenset(move(p) for p in self.overrides if p[:size] == old),
        )

    def mark(self, path: Path_) -> Mark:
        """The place of *path*, or of its nearest ancestor that has one."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, Mark("", 0, 0))


def without(value: Any, path: Path_) -> Any:
    """*value* with what lies at *path* taken out; nothing there is fine."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(value, dict) and head in value:
        if not rest:
            return {k: v for k, v in value.items() if k != head}
        return {**value, head: without(value[head], rest)}
    if isinstance(value, list) and isinstance(head, str):  # of NAME=VALUE, which is a mapping too
        return value if rest else [v for v in value if not isinstance(v, str) or v.partition("=")[0] != head]
    if isinstance(value, list) and isinstance(head, int) and head < len(value):
        if not rest:
            return value[:head] + value[head + 1 :]
        return [without(v, rest) if i == head else v for i, v in enumerate(value)]
    return value
