"""The OpenAPI document of the REST API, generated from its routes and types. Source: OpenAPI Specification 3.1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from orchestrator import __version__


class StreamOf(msgspec.Struct, frozen=True):
    """The answer type of a route that streams: one JSON object of type *of* a line."""

    of: Any


def document(routes: Sequence[tuple[str, str, Any, Any, Any]]) -> dict[str, Any]:
    """The document for *routes*: (method, path, handler, request type, answer type), the types None if there is no body. The
    answer type is a Stream if the answer is one object a line."""
    types = [t for *_, asked, given in routes for t in (asked, _line_type(given)) if t is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for method, path, handler, asked, given in routes:
        names = re.findall(r"\{(\w+)(?::[^}]*)?\}", path)
        plain = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
        operation: dict[str, Any] = {
            "operationId": handler.__name__,
            "summary": (handler.__doc__ or "").strip().splitlines()[0],
            "parameters": [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names],
            "responses": {
                "200": {"description": "done"},
                "default": {
                    "description": "an error",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {"message": {"type": "string"}},
                                "required": ["message"],
                            }
                        }
                    },
                },
            },
        }
        if given is not None:
            media = "application/x-ndjson" if isinstance(given, StreamOf) else "application/json"
            operation["responses"]["200"]["content"] = {media: {"schema": by_type[repr(_line_type(given))]}}
        if asked is not None:
            operation["requestBody"] = {"content": {"application/json": {"schema": by_type[repr(asked)]}}}
        verbs = ("get", "post", "put", "delete") if method == "*" else (method.lower(),)
        for verb in verbs:
            suffix = "" if len(verbs) == 1 else f"_{verb}"
            paths.setdefault(plain, {})[verb] = operation | {"operationId": handler.__name__ + suffix}
    return {
        "openapi": "3.1.0",
        "info": {"title": "pystack control API", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _line_type(given: Any) -> Any:
    return given.of if isinstance(given, StreamOf) else given
