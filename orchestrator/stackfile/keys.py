"""Every key of a stack file and what becomes of it: docs/compose.md is this table."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from orchestrator.stackfile.differences import DIFFERENCES, READING
from orchestrator.stackfile.schema import DEFS, FILE, LATER, Schema

HEAD = """# Every key of the Compose Specification, and what becomes of it

Made by `pystack schema --table` from `orchestrator/stackfile/schema.py`; a test holds it to the specification's own schema.
*yes*: honoured as in Docker Compose. *differently*: how. *no*: it has no effect, which is a warning with its line, and an error
under `--strict`. `*` is any name, `[]` each entry of a list.

"""


class Key(msgspec.Struct, frozen=True):
    """*path* as in services.*.ports[].target; *refused* and *differs* are "" where there is nothing to say."""

    path: str
    does: str
    differs: str
    refused: str

    @property
    def honoured(self) -> bool:
        """Whether the key has an effect."""
        return not self.refused


def keys() -> Iterator[Key]:
    """All of them, the parts of one that has no effect left out."""
    yield from _below(FILE, "")


def _below(schema: Schema, path: str) -> Iterator[Key]:
    if "$ref" in schema:
        schema = DEFS[schema["$ref"].rpartition("/")[2]]
    for shape in schema.get("oneOf", ()):
        yield from _below(shape, path)
    for name, shape in schema.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        key = Key(at, shape.get("description", ""), shape.get("x-differs", ""), shape.get("x-refused", ""))
        yield key
        if key.honoured:
            yield from _below(shape, at)
    names = [s for p, s in schema.get("patternProperties", {}).items() if p != "^x-"]
    rest = schema.get("additionalProperties")
    for shape in (*names, *([rest] if isinstance(rest, dict) else [])):
        yield from _below(shape, f"{path}.*")
    if "items" in schema:
        yield from _below(schema["items"], f"{path}[]")


def markdown() -> str:
    """The document of all keys: a table of keys, and one of differences in reading."""
    rows = [HEAD, "| key | what it is | here |\n|---|---|---|\n"]
    for key in keys():
        why = "not yet" if key.refused == LATER else key.refused.removeprefix("has no effect: ")
        here = f"no: {why}" if key.refused else f"differently: {key.differs}" if key.differs else "yes"
        path = key.path.replace("|", "\\|")
        rows.append(f"| `{path}` | {key.does} | {here} |\n")
    rows += [READING, "| what | Docker Compose | here |\n|---|---|---|\n"]
    return "".join(rows) + "".join(f"| {what} | {theirs} | {ours} |\n" for what, theirs, ours in DIFFERENCES)
