"""Taints keep tasks off a node, except those that tolerate them. Pure.

`NoSchedule` keeps new tasks off; `NoExecute` also sends running ones away. The grammar is in `stackfile/tolerations.py`.
Source: Kubernetes, Taints and Tolerations.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.stackfile.tolerations import TaintSyntaxError, parse_taint, parse_toleration


def syntax_problem(text: str) -> str:
    """Why *text* is not a taint, "" if it is one."""
    try:
        parse_taint(text)
    except TaintSyntaxError as error:
        return str(error)
    return ""


def kind(taint: str) -> tuple[str, str]:
    """The key and effect of *taint*: a node has at most one taint of each pair."""
    name, _, effect = taint.partition(":")
    return name.partition("=")[0], effect


def tolerates(toleration: str, taint: str) -> bool:
    """Whether *toleration* covers *taint*; False if either cannot be read."""
    wanted = parse_toleration(toleration)
    try:
        there = parse_taint(taint)
    except TaintSyntaxError:
        return False
    if wanted is None:
        return False
    return all(
        asked in (None, found)
        for asked, found in ((wanted.key, there.key), (wanted.value, there.value), (wanted.effect, there.effect))
    )


def against(taints: Sequence[str], tolerations: Sequence[str], *, staying: bool = False) -> list[str]:
    """Those of *taints* that keep a task with *tolerations* off, or, if it is *staying*, that send it away."""
    return [
        t
        for t in taints
        if not (staying and t.endswith(":NoSchedule")) and not any(tolerates(wanted, t) for wanted in tolerations)
    ]
