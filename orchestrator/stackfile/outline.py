"""The form of a stack file whose variables are not put in: short forms that variables cannot change are written out.

What a text means once its variables are known is not known here: ports, sizes and durations stay as they are. Source:
`docker compose config --no-interpolate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.load import Loaded
from orchestrator.stackfile.merge import as_mapping

MAPPINGS = ("environment", "labels", "annotations", "sysctls")
SECTIONS = ("networks", "volumes", "configs", "secrets")


def outline(loaded: Loaded, *, implied: bool, paths: bool) -> dict[str, Any]:
    """The document of *loaded*, with what follows from the rest if *implied*, and absolute *paths*."""
    document = loaded.document
    out: dict[str, Any] = {"name": loaded.stack.name, "services": {}}
    for name, body in (document.get("services") or {}).items():
        out["services"][name] = _service(loaded.directory, body, implied=implied, paths=paths)
    for section in SECTIONS:
        bodies = {k: dict(v or {}) for k, v in (document.get(section) or {}).items()}
        if implied and section == "networks" and any("default" in (s.get("networks") or ()) for s in out["services"].values()):
            bodies.setdefault("default", {})
        for key, body in bodies.items():
            if implied:
                body.setdefault("name", key if body.get("external") else f"{loaded.stack.name}_{key}")
            if paths and "file" in body:
                body["file"] = _absolute(loaded.directory, body["file"])
        if bodies:
            out[section] = bodies
    out |= {k: v for k, v in document.items() if k not in out and k not in ("version", "include")}
    return {k: _sorted(v) for k, v in out.items()}


def _service(directory: Path, body: dict[str, Any], *, implied: bool, paths: bool) -> dict[str, Any]:
    out = {k: v for k, v in body.items() if k != "extends"}
    for key in MAPPINGS:
        if key in out:
            out[key] = as_mapping(out[key])
    if "build" in out:
        out["build"] = _build(directory, out["build"], implied=implied, paths=paths)
    for key in ("networks", "models"):
        if isinstance(out.get(key), list):
            out[key] = dict.fromkeys(out[key])
    if isinstance(out.get("depends_on"), list):
        out["depends_on"] = {n: {"condition": "service_started", "required": True} for n in out["depends_on"]}
    for key in ("configs", "secrets"):
        if isinstance(out.get(key), list):
            out[key] = [{"source": item} if isinstance(item, str) else item for item in out[key]]
    if implied and not out.get("network_mode") and "provider" not in out and not out.get("networks"):
        out["networks"] = {"default": None}
    return out


def _build(directory: Path, value: Any, *, implied: bool, paths: bool) -> Any:
    build = {"context": value} if isinstance(value, str) else dict(value or {})
    if "args" in build:
        build["args"] = as_mapping(build["args"])
    if paths:
        build["context"] = _absolute(directory, build.get("context", "."))
    if implied and "dockerfile_inline" not in build:
        build.setdefault("dockerfile", "Dockerfile")
    return build


def _absolute(directory: Path, text: Any) -> Any:
    if not isinstance(text, str) or "$" in text or "://" in text or text.startswith("service:"):
        return text
    return str(absolute_path(text, directory))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _sorted(value[k]) for k in sorted(value, key=str)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value
