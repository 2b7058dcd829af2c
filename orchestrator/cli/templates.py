"""`--format` with a template: each row as the user words it, in the language of Go's text/template.

Names of fields are those of `--format json`, in any case, and Docker's for the same things (`{{.Name}}`, `{{.Status}}`).
Source: Docker CLI reference, "Format command and log output".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.contract.golang_template import TemplateError, expand
from orchestrator.errors import PystackError

DOCKERS = {"name": "task", "names": "name", "status": "state", "createdat": "created", "project": "stack", "repository": "name"}
_FIELD = re.compile(r"\{\{[^{}]*?\.([A-Za-z_][\w.]*)[^{}]*\}\}|\{\{[^{}]*\}\}")


class Fields(Mapping[str, Any]):
    """A row, whose names are found in any case, and by Docker's where it has none of that name."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row
        self._names = {name.lower(): name for name in row}

    def _name(self, name: str) -> str | None:
        lower = name.lower()
        return self._names.get(lower) or self._names.get(DOCKERS.get(lower, ""))

    def __contains__(self, name: object) -> bool:
        return self._name(str(name)) is not None

    def __getitem__(self, name: str) -> Any:
        found = self._name(name)
        if found is None:
            raise KeyError(name)
        value = self._row[found]
        return Fields(value) if isinstance(value, Mapping) else "" if value is None else _listed(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def plain(self) -> Mapping[str, Any]:
        """The row as it was."""
        return self._row


class _List(list[Any]):
    def __str__(self) -> str:
        return ", ".join(str(value) for value in self)


def _listed(value: Any) -> Any:
    """A list is shown as tables show it."""
    return _List(value) if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value.plain() if isinstance(value, Fields) else value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": lambda parts, mark: str(mark).join(map(str, parts)),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "title": lambda text: str(text).title(),
    "split": lambda text, mark: _List(str(text).split(mark)),
    "pad": lambda text, before, after: " " * before + str(text) + " " * after,
    "truncate": lambda text, length: str(text)[:length],
}


def worded(rows: Sequence[Mapping[str, Any]], template: str) -> Iterator[str]:
    """A line for each of *rows*; with "table " before the template, columns under heads. Raises PystackError."""
    with_heads = template.startswith("table ")
    text = template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    try:
        lines = [expand(text, Fields(row), FUNCTIONS) for row in rows]
    except TemplateError as error:
        raise PystackError(f"--format {template!r}: {error}") from None
    if with_heads:
        lines.insert(0, _FIELD.sub(lambda m: (m[1] or "").replace("_", " ").upper(), text))
    if "\t" not in text:
        yield from lines
        return
    cells = [line.split("\t") for line in lines]
    widths = [max((len(line[i]) for line in cells if i < len(line)), default=0) for i in range(max(map(len, cells), default=0))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
