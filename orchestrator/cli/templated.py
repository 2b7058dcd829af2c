"""`--format` with a template in the language of Go, as Docker's commands take it.

The functions are Docker's: json, split, join, upper, lower, title, pad, truncate, println. `table TEMPLATE` aligns the columns
that \\t parts, under heads. Source: docs.docker.com/engine/cli/formatting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from agent.contract.golang_template import Function, TemplateError, expand, text_of

GAP = 3
"""Blanks between columns at the least."""


class Fields(Mapping[str, Any]):
    """A row whose fields a template may write as JSON has them, or as Go does: `.node`, `.Node`, `.NodeName` for node_name."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self._names = {_plain(str(key)): key for key in row}

    def __getitem__(self, name: str) -> Any:
        key = name if name in self.row else self._names[_plain(name)]
        return wrapped(self.row[key])

    def __contains__(self, name: object) -> bool:
        return name in self.row or (isinstance(name, str) and _plain(name) in self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.row)

    def __len__(self) -> int:
        return len(self.row)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def wrapped(value: Any) -> Any:
    """*value* for a template: mappings in it by any spelling of their keys."""
    if isinstance(value, Mapping):
        return value if isinstance(value, Fields) else Fields(value)
    return [wrapped(one) for one in value] if isinstance(value, list | tuple) else value


def _json(value: Any) -> str:
    def bare(one: Any) -> Any:
        if isinstance(one, Fields):
            return {k: bare(v) for k, v in one.row.items()}
        return [bare(v) for v in one] if isinstance(one, list) else one

    return json.dumps(bare(value))


def _truncate(text: Any, length: int) -> str:
    return str(text)[:length]


FUNCTIONS: Mapping[str, Function] = {
    "json": _json,
    "split": lambda text, mark: str(text).split(mark),
    "join": lambda parts, mark: str(mark).join(map(text_of, parts)),
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "pad": lambda text, before, after: f"{' ' * min(before, 1000)}{text}{' ' * min(after, 1000)}" if text else "",
    "truncate": _truncate,
}


def is_template(shape: str) -> bool:
    """Whether *shape*, a value of `--format`, is a template and not the name of a form."""
    return "{{" in shape


def lines(rows: Sequence[Mapping[str, Any]], shape: str) -> Iterator[str]:
    """Each of *rows* as the template *shape* has it; for `table …` below heads. Raises click.UsageError."""
    aligned = shape.startswith("table ")
    template = shape.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    filled = [_filled(template, Fields(row)) for row in rows]
    if not aligned:
        yield from filled
        return
    heads = re.sub(r"\{\{[^{}]*?\.?(\w+)[^{}\w]*\}\}", lambda m: re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", m[1]).upper(), template)
    cells = [line.split("\t") for line in (heads, *filled)]
    count = max(map(len, cells))
    widths = [max((len(line[i]) for line in cells if i < len(line)), default=0) + GAP for i in range(count)]
    for line in cells:
        yield "".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip()


def _filled(template: str, row: Fields) -> str:
    try:
        return expand(template, row, FUNCTIONS)
    except TemplateError as error:
        raise click.UsageError(f"--format: {error}") from None
