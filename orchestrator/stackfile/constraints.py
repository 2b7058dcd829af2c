"""The grammar of placement constraints: Swarm's, and the operators that `x-placement` adds.

What a constraint means on a node is in `placement/constraints.py`. Source: Docker's documentation of `--constraint`, and
behaviour observed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import msgspec

Operator = Literal["==", "!=", "in", "not in", "exists", "not exists", "matches", ">=", "<=", ">", "<"]
_KEY = r"(?i)[a-z_][a-z0-9\-_.]+"
_VALUE = r"(?i)[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+"


class ConstraintSyntaxError(ValueError):
    """A constraint that cannot be read; *fix* says how to write it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.fix = "write node.labels.zone == east; operators are == and !=, x-placement has more"


class Constraint(msgspec.Struct, frozen=True):
    """One condition on the *key* of a node. *values* are for `in` and `not in`, *value* is for the others that take one."""

    key: str
    operator: Operator
    value: str = ""
    values: tuple[str, ...] = ()


@lru_cache(4096)
def parse(text: str) -> Constraint:
    """A constraint in Swarm's grammar: the first == or, without one, the first != in *text* splits it.

    Raises ConstraintSyntaxError."""
    for operator in ("==", "!="):
        key, sep, value = text.partition(operator)
        if not sep:
            continue
        key, value = _key(key.strip()), value.strip()
        if not re.fullmatch(_VALUE, value):
            raise ConstraintSyntaxError(f"{value!r} is not a valid value of a constraint")
        return Constraint(key, operator, value)
    raise ConstraintSyntaxError(f"{text!r} has no operator")


@lru_cache(4096)
def parse_extended(text: str) -> Constraint:
    """A constraint of `x-placement`: also KEY [not] in (a, b), KEY [not] exists, KEY matches REGEX, KEY >= NUMBER.

    Raises ConstraintSyntaxError."""
    if match := re.fullmatch(r"\s*(\S+)\s+(not\s+)?in\s*\(([^)]*)\)\s*", text):
        values = tuple(v.strip() for v in match[3].split(",") if v.strip())
        return Constraint(_key(match[1]), "not in" if match[2] else "in", values=values)
    if match := re.fullmatch(r"\s*(\S+)\s+(not\s+)?exists\s*", text):
        return Constraint(_key(match[1]), "not exists" if match[2] else "exists")
    if match := re.fullmatch(r"\s*(\S+)\s+matches\s+(.+?)\s*", text):
        try:
            re.compile(match[2])
        except re.error as error:
            raise ConstraintSyntaxError(f"{match[2]!r} is not a regular expression: {error}") from None
        return Constraint(_key(match[1]), "matches", match[2])
    if match := re.fullmatch(r"\s*([^\s<>=!]+)\s*(>=|<=|>|<)\s*(-?[0-9.]+)\s*", text):
        return Constraint(_key(match[1]), match[2], match[3])  # type: ignore[arg-type]
    return parse(text)


def _key(text: str) -> str:
    if not re.fullmatch(_KEY, text):
        raise ConstraintSyntaxError(f"{text!r} is not a valid key of a constraint")
    return text
