"""The grammar of taints and of the tolerations that answer them (`x-placement.tolerations`).

A taint is `KEY[=VALUE]:EFFECT`. A toleration is `KEY`, `KEY=VALUE`, either of these with an effect, or `*` for everything.
What they mean for a task is in `placement/taints.py`. Source: Kubernetes, Taints and Tolerations.
"""

from __future__ import annotations

import re

import msgspec

EFFECTS = ("NoSchedule", "NoExecute")
_TAINT = r"([A-Za-z0-9][\w./-]*)(?:=([\w.-]*))?:(\w+)\Z"
_TOLERATION = r"\*\Z|([A-Za-z0-9][\w./-]*)(?:=([\w.-]*))?(?::(\w+))?\Z"


class TaintSyntaxError(ValueError):
    """A text that cannot be read as a taint; the message says how to write one."""


class Taint(msgspec.Struct, frozen=True):
    """*value* is None in `KEY:EFFECT`, "" in `KEY=:EFFECT`."""

    key: str
    value: str | None
    effect: str


class Toleration(msgspec.Struct, frozen=True):
    """A field that is None admits every key, value or effect."""

    key: str | None
    value: str | None
    effect: str | None


def parse_taint(text: str) -> Taint:
    """Raises TaintSyntaxError."""
    match = re.match(_TAINT, text)
    if not match:
        raise TaintSyntaxError(f"{text!r} is not a taint: write KEY=VALUE:NoSchedule or KEY:NoExecute")
    if match[3] not in EFFECTS:
        raise TaintSyntaxError(f"{text!r}: the effect {match[3]!r} is none of {', '.join(EFFECTS)}")
    return Taint(match[1], match[2], match[3])


def parse_toleration(text: str) -> Toleration | None:
    """None if *text* is not a toleration."""
    match = re.match(_TOLERATION, text)
    if match is None or match[3] not in (None, *EFFECTS):
        return None
    return Toleration(match[1], match[2], match[3])
