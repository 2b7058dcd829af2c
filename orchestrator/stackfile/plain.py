"""Values that were written as text, or put in for a variable, as what their keys are: true and false, whole numbers."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.stackfile.field_readers import flag
from orchestrator.stackfile.schema import DEFS, FLAG, NUMBER, WHOLE, Schema


def cast(schema: Schema, value: Any) -> Any:
    """*value* with what *schema* calls a flag or a number as such; what is neither stays."""
    if "$ref" in schema:
        schema = DEFS[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, str):
        if schema.get("title") == FLAG["title"]:
            return flag(value)
        if schema.get("title") in (WHOLE["title"], NUMBER["title"]) and re.fullmatch(r"-?(0|[1-9]\d*)", value):
            return int(value)
        return value
    for one in schema.get("oneOf", ()):
        if isinstance(value, dict) and ("properties" in one or "patternProperties" in one or "additionalProperties" in one):
            return cast(one, value)
        if isinstance(value, list) and "items" in one:
            return cast(one, value)
    if isinstance(value, list):
        return [cast(schema.get("items", {}), item) for item in value]
    if isinstance(value, dict):
        # permission bits as text are octal digits, and no number
        return {k: v if k == "mode" else cast(_inner(schema, k), v) for k, v in value.items()}
    return value


def _inner(schema: Schema, key: str) -> Schema:
    if key in schema.get("properties", {}):
        return schema["properties"][key]  # type: ignore[no-any-return]
    for pattern, shape in schema.get("patternProperties", {}).items():
        if re.search(pattern, str(key)):
            return shape  # type: ignore[no-any-return]
    rest = schema.get("additionalProperties")
    return rest if isinstance(rest, dict) else {}
