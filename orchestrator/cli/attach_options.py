"""How an attached `up` goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Attach(NamedTuple):
    """How an attached `up` goes on. *ends* is what ends it: "all" containers, "any" one or a "failure"; *code_from* is the
    service whose exit code is its own; *shown* are the services whose output is shown, all if empty, without *hidden*; *style*
    is how (fields of `LogOptions`); *stop_s* is how long containers have to stop, None for their own time. *watch*: changes of
    files reach the containers meanwhile; *menu*: keys do something, on a terminal."""

    ends: str = "all"
    code_from: str = ""
    shown: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    style: Mapping[str, Any] = MappingProxyType({})
    stop_s: float | None = None
    watch: bool = False
    menu: bool = False
