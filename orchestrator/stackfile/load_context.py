"""One reading of the stack files: the tree, where its values stand, and the problems found so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem

ABSENT = {
    ("x-ingress", "sni"): ("the name is called host", "{host: db.example.org, tcp: 5432, port: 5432}"),
    ("x-ingress", "listen"): ("the nodes' port is called tcp or udp", "{tcp: 5432, port: 5432}"),
}
"""Keys of an item that people look for, by that of its list: why there are none, and what there is instead."""


class LoadContext:
    """*directory* is the project's folder; *environment* the variables of the client and of .env files. *bad* are the places
    of values that have another shape than they must: nobody reads them further."""

    def __init__(
        self, tree: MarkedDocument, directory: Path, environment: Mapping[str, str], name: str, *, consistent: bool = True
    ) -> None:
        self.tree = tree
        self.directory = directory
        self.environment = environment
        self.name = name
        self.consistent = consistent
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.differences: list[Problem] = []
        """Keys that are honoured otherwise than elsewhere."""
        self.bad: set[Path_] = set()
        self.flaws: dict[Path_, list[str]] = {}
        """By network and volume why none can be made as the file says; who uses it is not started."""

    def mark(self, path: Path_) -> Mark:
        """The place of *path* in its file."""
        return self.tree.mark(path)

    def problem(self, path: Path_, why: str, fix: str = "") -> None:
        """Something is wrong at *path*."""
        self.problems.append(Problem(where=self.mark(path), what=dotted(path), why=why, fix=fix))

    def is_valid(self, path: Path_) -> bool:
        """Nothing at or below *path* has another shape than it must."""
        return all(b[: len(path)] != path for b in self.bad)

    def check(self, path: Path_, why: str, fix: str = "") -> None:
        """Well-formed, but it cannot work here: a problem, unless only the form is asked for."""
        if self.consistent:
            self.problem(path, why, fix)

    def flaw(self, path: Path_, why: str, fix: str = "") -> None:
        """What is at *path*, of a network or volume, is well-formed and can be shown, but there can be no such thing here."""
        text = f"{self.mark(path)}: {dotted(path)}: {why}{': ' if fix else ''}{fix}"
        self.flaws.setdefault(path[:2], []).append(text)

    def warn(self, path: Path_, why: str) -> None:
        """Add a warning about *path*."""
        self.warnings.append(Problem(where=self.mark(path), what=dotted(path), why=why))

    def unknown(self, path: Path_, known: Iterable[str]) -> None:
        """A key that no version of the specification has; x- ones are everybody's."""
        if str(path[-1]).startswith("x-"):
            return
        if found := ABSENT.get((str(path[-3]), str(path[-1]))) if len(path) > 2 else None:
            return self.problem(path, *found)
        import difflib

        near = difflib.get_close_matches(str(path[-1]), list(known), 1)
        self.problem(path, "no such key", f"did you mean {near[0]}?" if near else "remove it, or prefix it with x-")

    def mapping(self, value: Any, path: Path_) -> dict[str, Any]:
        """*value* where it is a mapping; anything else is a problem and reads as empty."""
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.problem(path, f"must be a mapping, not {kind(value)}")
        return {}

    def sequence(self, value: Any, path: Path_) -> list[Any]:
        """*value* if it is a list; anything else is a problem and reads as empty."""
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.problem(path, f"must be a list, not {kind(value)}")
        return []

    def host_path(self, text: str) -> Path:
        """A path of the client, absolute: ~ is put in, and relative ones are below the project's folder."""
        return absolute_path(text, self.directory)


def dotted(path: Path_) -> str:
    """services.web.ports[0]"""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out or "the file"


def kind(value: Any) -> str:
    """What a user would call the type of *value*."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
