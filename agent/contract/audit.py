"""What a node finds of itself in an audit."""

from __future__ import annotations

from typing import Literal

from agent.contract.wire import WireStruct


class HostFinding(WireStruct, frozen=True, kw_only=True):
    """One rule of the benchmark on one *target*, a path or a document of settings. Where it is not *ok*, *detail* says what is,
    and *fix* what to do; it is *fixable* where `audit --fix` does that."""

    rule: str
    title: str
    target: str
    ok: bool
    level: Literal["error", "warning", "note"] = "warning"
    detail: str = ""
    fix: str = ""
    fixable: bool = False
