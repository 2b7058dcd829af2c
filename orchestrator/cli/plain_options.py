"""The options of `pystack container run` whose values are plain (`agent.contract.options`), and the request that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from agent.contract.options import OPTIONS, Kind, Option

F = TypeVar("F", bound=Callable[..., Any])
_ATTRIBUTES: dict[Kind, dict[str, Any]] = {
    Kind.FLAG: {"is_flag": True},
    Kind.TEXT: {"default": ""},
    Kind.SIZE: {"default": "", "metavar": "SIZE"},
    Kind.WORDS: {"multiple": True},
    Kind.WORD_OR_WORDS: {"multiple": True},
    Kind.PAIRS: {"multiple": True, "metavar": "NAME=VALUE"},
}


def options(command: F) -> F:
    """Gives *command* a click option for each plain option of a container; its value is passed by the name of the field."""
    for option in reversed(OPTIONS):
        if not option.flag:
            continue
        attributes = _ATTRIBUTES.get(option.kind) or {"type": click.IntRange(option.low, option.high), "default": 0}
        names = [name for name in (option.short, option.flag) if name]
        command = click.option(*names, option.field, help=option.does, **attributes)(command)
    return command


def config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a create request of the Engine API that *given* values stand in, outside HostConfig."""
    return {o.config: _value(o, given[o.field]) for o in OPTIONS if o.flag and o.config}


def host_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The HostConfig of a create request that *given* values stand in."""
    return {o.host: _value(o, given[o.field]) for o in OPTIONS if o.flag and o.host}


def _value(option: Option, given: Any) -> Any:
    if option.kind is Kind.SIZE:
        return size(option.flag, given)
    if option.kind is Kind.PAIRS:
        return dict(text.partition("=")[::2] for text in given)
    return list(given) if isinstance(given, tuple) else given


def size(flag: str, text: str) -> int:
    """Bytes of the value *text* of *flag*, 0 for "". Raises click.UsageError."""
    if not text:
        return 0
    from orchestrator.stackfile.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.UsageError(f"{flag} {text}: {error}") from None
