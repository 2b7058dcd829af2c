"""The options of a container whose values are plain (`agent.contract.options`), in the documents of the Engine API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from agent.api.shape_kinds import WHOLE, Map
from agent.contract.container import Container
from agent.contract.options import OPTIONS, Kind, Option

Document = dict[str, Any]


class _Form(NamedTuple):
    """Of a kind: the *shape* of its values in a request, how to *read* one, None if it is missing, and how to *show* it."""

    shape: Any
    read: Callable[[Any], Any]
    show: Callable[[Any], Any]


_LIST = _Form([str], lambda value: tuple(value or ()), list)
_FORMS = {
    Kind.FLAG: _Form(bool, bool, bool),
    Kind.TEXT: _Form(str, lambda value: value or "", str),
    Kind.WHOLE: _Form(int, lambda value: value or 0, int),
    Kind.SIZE: _Form(WHOLE, lambda value: value or 0, int),
    Kind.WORDS: _LIST,
    Kind.WORD_OR_WORDS: _LIST,
    Kind.PAIRS: _Form(Map(str), lambda value: tuple(sorted((value or {}).items())), dict),
}


def config_shapes() -> dict[str, Any]:
    """The shapes of the options that stand in the request itself."""
    return {o.config: _FORMS[o.kind].shape for o in OPTIONS if o.config}


def host_shapes(*, limits: bool = False) -> dict[str, Any]:
    """The shapes of the options in HostConfig; of *limits* alone, those that a request to update may have."""
    return {o.host: _FORMS[o.kind].shape for o in OPTIONS if o.host and (o.limit or not limits)}


def fields(body: Document) -> dict[str, Any]:
    """The fields of a Container that a create request has."""
    host: Document = body.get("HostConfig") or {}
    return {o.field: _FORMS[o.kind].read(host.get(o.host) if o.host else body.get(o.config)) for o in OPTIONS if _in_api(o)}


def _in_api(option: Option) -> bool:
    return bool(option.host or option.config)


def host_config(container: Container) -> Document:
    """The HostConfig that has the container's options."""
    return {o.host: _shown(o, getattr(container, o.field)) for o in OPTIONS if o.host}


def _shown(option: Option, value: Any) -> Any:
    form = _FORMS[option.kind]
    return None if option.nullable and value == () else form.show(value)
