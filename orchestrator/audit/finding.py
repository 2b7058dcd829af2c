"""What an audit finds."""

from __future__ import annotations

from typing import Literal

from agent.contract.wire import WireStruct

Level = Literal["error", "warning", "note"]


class Finding(WireStruct, frozen=True, kw_only=True):
    """One rule on one *target* (`services.web`, a node's setting). *rule* is a section of the benchmark (`5.5`). Where it is
    not *ok*, *detail* says what is, *fix* what to write or do, *where* the place (`stack.yml:3:5`)."""

    rule: str
    title: str
    target: str
    ok: bool
    level: Level = "warning"
    detail: str = ""
    fix: str = ""
    where: str = ""
