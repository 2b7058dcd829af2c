"""Relative paths of what comes from another folder, made absolute: they are that folder's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.stackfile.host_paths import absolute_path
from orchestrator.stackfile.mount_text import is_windows
from orchestrator.stackfile.remote import is_remote

OTHERS = ("/", "~", "service:", "target:")
"""How a text begins that is not a relative path."""
At = Callable[[Any], Any]


def absolute(document: dict[str, Any], directory: Path) -> dict[str, Any]:
    """*document* with its relative paths made those of *directory*."""

    def at(text: Any) -> Any:
        if not isinstance(text, str) or is_windows(text) or is_remote(text) or text.startswith(OTHERS):
            return text
        return str(absolute_path(text, directory))

    rules = {"services": _service, "configs": _content, "secrets": _content}
    out = dict(document)
    for section, rule in rules.items():
        if isinstance(bodies := document.get(section), dict):
            out[section] = {name: rule(body, at) if isinstance(body, dict) else body for name, body in bodies.items()}
    return out


def _content(body: dict[str, Any], at: At) -> dict[str, Any]:
    return {**body, "file": at(body["file"])} if "file" in body else body


def _service(body: dict[str, Any], at: At) -> dict[str, Any]:
    return {key: PATHS[key](value, at) if key in PATHS else value for key, value in body.items()}


def _build(value: Any, at: At) -> Any:
    if not isinstance(value, dict):
        return at(value)
    out = {**value, "context": at(value.get("context", "."))}
    if isinstance(contexts := value.get("additional_contexts"), dict):
        out["additional_contexts"] = {name: at(context) for name, context in contexts.items()}
    return out


def _files(value: Any, at: At) -> Any:
    if not isinstance(value, list):
        return at(value)
    return [{**one, "path": at(one.get("path"))} if isinstance(one, dict) else at(one) for one in value]


def _extends(value: Any, at: At) -> Any:
    return {**value, "file": at(value["file"])} if isinstance(value, dict) and "file" in value else value


def _mounts(value: Any, at: At) -> Any:
    return [_mount(one, at) for one in value] if isinstance(value, list) else value


def _mount(mount: Any, at: At) -> Any:
    if isinstance(mount, str) and mount.startswith("."):
        source, colon, rest = mount.partition(":")
        return f"{at(source)}{colon}{rest}"
    if isinstance(mount, dict) and mount.get("type") == "bind":
        return {**mount, "source": at(mount.get("source"))}
    return mount


def _develop(value: Any, at: At) -> Any:
    if not isinstance(value, dict) or not isinstance(rules := value.get("watch"), list):
        return value
    watch = [{**one, "path": at(one["path"])} if isinstance(one, dict) and "path" in one else one for one in rules]
    return {**value, "watch": watch}


PATHS: dict[str, Callable[[Any, At], Any]] = {
    "build": _build,
    "env_file": _files,
    "label_file": _files,
    "extends": _extends,
    "volumes": _mounts,
    "develop": _develop,
}
"""Keys of a service that name files of the project."""
