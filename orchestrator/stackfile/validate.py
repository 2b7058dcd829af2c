"""Holds a document against the schema: each value that has another shape than its key's is a problem with its place.

What is checked is the part of JSON Schema that `schema.py` uses. Where a key may have one of several shapes, the one of the
value's type is meant, and its problems are reported.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.stackfile.load_context import LoadContext, dotted, kind
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.problem import Problem
from orchestrator.stackfile.schema import DEFS, FILE, Schema

NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "nothing",
}


def check(reading: LoadContext, document: dict[str, Any]) -> None:
    """Problems, and warnings for keys that have no effect, go to *reading*; what has a problem is marked there as bad."""
    _check(reading, FILE, document, ())


def _check(reading: LoadContext, schema: Schema, value: Any, path: Path_) -> None:
    schema = _chosen(schema, value)
    types = _types(schema)
    if types and not any(_matches_type(value, t) for t in types):
        return _reject(reading, path, f"must be {_wanted(schema)}, not {kind(value)}")
    if refused := schema.get("x-refused"):
        reading.warn(path, refused)
    if differs := schema.get("x-differs"):
        reading.differences.append(Problem(where=reading.mark(path), what=dotted(path), why=differs))
    if isinstance(value, dict):
        _check_mapping(reading, schema, value, path)
    elif isinstance(value, list):
        _check_list(reading, schema, value, path)
    elif "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(schema["enum"])
        _reject(reading, path, f"{value!r} is not known", f"one of {choices}" if len(schema["enum"]) > 1 else choices)
    elif isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        _reject(reading, path, f"must be {_wanted(schema)}, not {value!r}")
    elif isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        span = f"at least {schema['minimum']}" if "maximum" not in schema else f"{schema['minimum']} to {schema['maximum']}"
        _reject(reading, path, f"must be {span}, not {value}")


def _check_mapping(reading: LoadContext, schema: Schema, value: dict[str, Any], path: Path_) -> None:
    own = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    rest = schema.get("additionalProperties", True)
    for name, item in value.items():
        at = (*path, name)
        if name in own:
            _check(reading, own[name], item, at)
            continue
        fitting = [shape for pattern, shape in patterns.items() if re.search(pattern, str(name))]
        if fitting:
            _check(reading, fitting[0], item, at)
        elif isinstance(rest, dict):
            _check(reading, rest, item, at)
        elif rest is False and own:
            reading.unknown(at, own)
            reading.bad.add(at)
        elif rest is False and not str(name).startswith("x-"):
            _reject(reading, at, "a name is letters, digits, . _ and -")
    for name in schema.get("required", ()):
        if name not in value:
            _reject(reading, path, f"needs {name}")


def _check_list(reading: LoadContext, schema: Schema, value: list[Any], path: Path_) -> None:
    seen: list[Any] = []
    for number, item in enumerate(value):
        if schema.get("uniqueItems") and any(type(item) is type(s) and item == s for s in seen):
            _reject(reading, (*path, number), "is in the list twice", "keep one of them")
        seen.append(item)
        _check(reading, schema.get("items", {}), item, (*path, number))


def _chosen(schema: Schema, value: Any) -> Schema:
    """What a reference or a choice means for *value*; the key's own words stay."""
    if "$ref" in schema:
        return {**DEFS[schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k.startswith("x-")}}
    if "oneOf" not in schema:
        return schema
    fitting = [s for s in schema["oneOf"] if any(_matches_type(value, t) for t in _types(s))]
    if not fitting:
        return schema
    return {**_chosen(fitting[0], value), **{k: v for k, v in schema.items() if k.startswith("x-")}}


def _types(schema: Schema) -> list[str]:
    if "oneOf" in schema:
        return [t for s in schema["oneOf"] for t in _types(s)]
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _matches_type(value: Any, word: str) -> bool:
    """Numbers and flags may be written as text: interpolation makes no others."""
    if word == "number":
        return (isinstance(value, (int, float)) and not isinstance(value, bool)) or _reads(value, float)
    if word == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or _reads(value, int)
    if word == "boolean":
        return isinstance(value, bool) or value in ("true", "false")
    if word == "null":
        return value is None
    if word == "object":
        return isinstance(value, dict)
    return isinstance(value, list if word == "array" else str)


def _reads(value: Any, kind_: type) -> bool:
    try:
        return isinstance(value, str) and kind_(value) is not None
    except ValueError:
        return False


def _wanted(schema: Schema) -> str:
    if title := schema.get("title"):
        return str(title)
    return " or ".join(dict.fromkeys(NAMES[t] for t in _types(schema)))


def _reject(reading: LoadContext, path: Path_, why: str, fix: str = "") -> None:
    reading.problem(path, why, fix)
    reading.bad.add(path)
