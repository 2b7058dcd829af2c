"""YAML into plain values that remember where they stand: apart from them, for a server has documents and reads no YAML.

Source: YAML 1.1 as PyYAML reads it, with the duplicate keys, tabs and bombs that it would let through refused.
"""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.problem import Mark, Problem, StackFileError

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml: slower, the same result
    from yaml import SafeLoader as Loader  # type: ignore[assignment]


class _Loader(Loader):
    """YAML 1.2's idea of numbers and truth: `yes` is a word, 22:22 no sexagesimal number, and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.rsplit(":", 1)[1] not in ("bool", "int", "float", "timestamp")]
    for first, rules in Loader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))

MAX_BYTES = 8 << 20
MAX_NODES = 200_000
MAX_DEPTH = 100


class _DocumentBuilder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.resets: set[Path_] = set()
        self.overrides: set[Path_] = set()
        self.marks: dict[Path_, Mark] = {}
        self.problems: list[Problem] = []
        self.count = 0
        self.loader = yaml.SafeLoader("")

    def mark(self, node: yaml.Node) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: yaml.Node, path: Path_, depth: int = 0) -> Any:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            limit = f"{MAX_NODES} values" if self.count > MAX_NODES else f"{MAX_DEPTH} levels"
            raise StackFileError(
                [
                    Problem(
                        where=self.mark(node),
                        what=f"the file unfolds to more than {limit}",
                        why="anchors that multiply each other, or nesting without end",
                        fix="write it out without them",
                    )
                ]
            )
        self.marks.setdefault(path, self.mark(node))
        if node.tag == "!reset":
            self.resets.add(path)
            return None
        if node.tag == "!override":
            self.overrides.add(path)
            if isinstance(node, yaml.ScalarNode):
                return node.value or None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            why = getattr(error, "problem", "") or str(error)
            self.problems.append(Problem(where=self.mark(node), what="a value that cannot be read", why=why))
            return None

    def mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: list[tuple[yaml.Node, Any]] = []
        seen: dict[str, Mark] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        self.problems.append(Problem(where=self.mark(source), what="<<: wants a mapping"))
                        continue
                    merged.append((source, self.build(source, path, depth + 1)))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(where=self.mark(key_node), what="a key must be a plain word"))
                continue
            key = str(key_node.value)
            if key_node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
                self.problems.append(
                    Problem(where=self.mark(key_node), what=f"key {key} is a number", why="keys are text", fix=f'write "{key}"')
                )
            if key in seen:
                self.problems.append(
                    Problem(
                        where=self.mark(key_node),
                        what=f"key {key!r} stands twice",
                        why=f"first at {seen[key]}",
                        fix="keep one of them",
                    )
                )
            seen[key] = self.mark(key_node)
            self.marks[(*path, key)] = self.mark(key_node)
            value = self.build(value_node, (*path, key), depth + 1)
            if value_node.tag != "!reset":  # else it is not there, for a service that extends this one neither
                out[key] = value
        for _, values in merged:
            for key, value in values.items():
                out.setdefault(key, value)
        return out


def parse(text: str, file: str) -> list[MarkedDocument]:
    """The YAML documents of *text*, those without content left out. Raises StackFileError with every problem of their form."""
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = Mark(file, at.line + 1, at.column + 1) if at else Mark(file, 1, 1)
        why = " ".join(part for part in (error.context, error.problem) if part)
        hint = "use spaces" if "\\t" in why or "'\\t'" in why else "check the indentation and quotes around it"
        raise StackFileError([Problem(where=where, what="this is not YAML", why=why, fix=hint)]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise StackFileError([Problem(where=Mark(file, 1, 1), what="this is not YAML", why=str(error))]) from error
    full = [n for n in nodes if n is not None and not (n.tag == "tag:yaml.org,2002:null" and not n.value)]
    return [_document(node, file) for node in full] or [MarkedDocument({}, {(): Mark(file, 1, 1)})]


def _document(node: yaml.Node, file: str) -> MarkedDocument:
    builder = _DocumentBuilder(file)
    try:
        value = builder.build(node, ())
    except RecursionError:
        raise StackFileError([Problem(where=Mark(file, 1, 1), what="an anchor contains itself")]) from None
    if not isinstance(value, dict):
        builder.problems.append(
            Problem(
                where=builder.mark(node),
                what=f"a stack file is a mapping, not a {type(value).__name__}",
                fix="begin with `services:`",
            )
        )
    if builder.problems:
        raise StackFileError(builder.problems)
    return MarkedDocument(value, builder.marks, frozenset(builder.resets), frozenset(builder.overrides))


STANDARD_INPUT = "-"


@functools.cache
def _standard_input() -> bytes:
    """What comes there, read once: a command may load its files twice."""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def read(path: Path, shown: str) -> list[MarkedDocument]:
    """Read the documents of the file at *path*, or of the standard input; *shown* is its name in messages."""
    where = Mark(shown, 0, 0)
    try:
        data = _standard_input() if str(path) == STANDARD_INPUT else None
        if (path.stat().st_size if data is None else len(data)) > MAX_BYTES:
            raise StackFileError([Problem(where=where, what=f"the file is larger than {MAX_BYTES >> 20} MiB")])
        return parse((path.read_bytes() if data is None else data).decode("utf-8-sig"), shown)
    except UnicodeDecodeError as error:
        raise StackFileError(
            [Problem(where=where, what="the file is not UTF-8", why=f"byte {error.start} is {error.object[error.start]:#x}")]
        ) from error
    except OSError as error:
        raise StackFileError(
            [Problem(where=where, what="the file cannot be read", why=error.strerror or str(error))]
        ) from error
