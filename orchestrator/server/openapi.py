"""The OpenAPI document of the REST API, generated from its routes and types. Source: OpenAPI Specification 3.1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from orchestrator import __version__


def document(routes: Sequence[tuple[str, str, Any, Any, Any]]) -> dict[str, Any]:
    """*routes* are (method, path, handler, request type, answer type)."""
    types = [t for _, _, _, asked, given in routes for t in (asked, given) if t is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for method, path, handler, asked, given in routes:
        names = re.findall(r"\{(\w+)(?::[^}]*)?\}", path)
        plain = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
        operation: dict[str, Any] = {
            "operationId": handler.__name__,
            "summary": (handler.__doc__ or "").strip().splitlines()[0],
            "parameters": [
                {"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names
            ],
            "responses": {
                "200": {"description": "done"},
                "default": {"description": "an error", "content": {"application/json": {"schema": {
                    "type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"],
                }}}},
            },
        }
        if given is not None:
            operation["responses"]["200"]["content"] = {"application/json": {"schema": by_type[repr(given)]}}
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
