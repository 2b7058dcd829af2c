"""Taints: what keeps tasks off a node, but for those that tolerate it. Pure.

`KEY[=VALUE]:NoSchedule` keeps new tasks off; `KEY[=VALUE]:NoExecute` sends away those that are there too. A toleration is
`KEY`, `KEY=VALUE`, either of these with an effect, or `*` for everything. Source: Kubernetes, Taints and Tolerations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

EFFECTS = ("NoSchedule", "NoExecute")
_TAINT = re.compile(r"([A-Za-z0-9][\w./-]*)(?:=([\w.-]*))?:(\w+)\Z")
_TOLERATION = re.compile(r"\*\Z|([A-Za-z0-9][\w./-]*)(?:=([\w.-]*))?(?::(\w+))?\Z")


def refused(text: str) -> str:
    """Why *text* is no taint, "" where it is one."""
    match = _TAINT.match(text)
    if not match:
        return f"{text!r} is no taint: write KEY=VALUE:NoSchedule or KEY:NoExecute"
    return "" if match[3] in EFFECTS else f"{text!r}: the effect {match[3]!r} is none of {', '.join(EFFECTS)}"


def kind(taint: str) -> tuple[str, str]:
    """Its key and effect: a node has one taint of each."""
    name, _, effect = taint.partition(":")
    return name.partition("=")[0], effect


def is_toleration(text: str) -> bool:
    match = _TOLERATION.match(text)
    return match is not None and (match[0] == "*" or match[3] in (None, *EFFECTS))


def tolerates(toleration: str, taint: str) -> bool:
    wanted, there = _TOLERATION.match(toleration), _TAINT.match(taint)
    if wanted is None or there is None:
        return False
    return wanted[0] == "*" or (wanted[1] == there[1] and wanted[2] in (None, there[2]) and wanted[3] in (None, there[3]))


def against(taints: Sequence[str], tolerations: Sequence[str], *, staying: bool = False) -> list[str]:
    """Those of *taints* that keep a task with *tolerations* off; that send it away, where it is *staying*."""
    return [
        t
        for t in taints
        if not (staying and t.endswith(":NoSchedule")) and not any(tolerates(wanted, t) for wanted in tolerations)
    ]
