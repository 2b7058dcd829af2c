"""Placement constraints: Swarm's grammar with Swarm's verdicts, and the operators that `x-placement` adds.

Swarm knows `==` and `!=` alone: values are compared without regard to case and have no wildcards, a label that a node
lacks counts as "", an unknown key fails whatever the operator. Source: Docker's documentation of `--constraint`, and
behaviour observed.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Literal

import msgspec

from orchestrator.placement.node import Node

Operator = Literal["==", "!=", "in", "not in", "exists", "not exists", "matches", ">=", "<=", ">", "<"]
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)
KEYS = ("node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class ConstraintSyntaxError(ValueError):
    """A constraint that cannot be read; *fix* says how it is written."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.fix = "write node.labels.zone == east; operators are == and !=, x-placement has more"


class Constraint(msgspec.Struct, frozen=True):
    key: str
    operator: Operator
    value: str = ""
    values: tuple[str, ...] = ()


@lru_cache(4096)
def parse(text: str) -> Constraint:
    """A constraint in Swarm's grammar: the first of == and != that stands in *text* parts it. Raises ConstraintSyntaxError."""
    for operator in ("==", "!="):
        key, sep, value = text.partition(operator)
        if not sep:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise ConstraintSyntaxError(f"{key!r} is no key of a constraint")
        if not _VALUE.fullmatch(value):
            raise ConstraintSyntaxError(f"{value!r} is no value of a constraint")
        return Constraint(key, operator, value)
    raise ConstraintSyntaxError(f"{text!r} has no operator")


@lru_cache(4096)
def parse_extended(text: str) -> Constraint:
    """A constraint of `x-placement`: also KEY [not] in (a, b), KEY [not] exists, KEY matches REGEX, KEY >= NUMBER."""
    if match := re.fullmatch(r"\s*(\S+)\s+(not\s+)?in\s*\(([^)]*)\)\s*", text):
        values = tuple(v.strip() for v in match[3].split(",") if v.strip())
        return Constraint(_key(match[1]), "not in" if match[2] else "in", values=values)
    if match := re.fullmatch(r"\s*(\S+)\s+(not\s+)?exists\s*", text):
        return Constraint(_key(match[1]), "not exists" if match[2] else "exists")
    if match := re.fullmatch(r"\s*(\S+)\s+matches\s+(.+?)\s*", text):
        try:
            re.compile(match[2])
        except re.error as error:
            raise ConstraintSyntaxError(f"{match[2]!r} is no regular expression: {error}") from None
        return Constraint(_key(match[1]), "matches", match[2])
    if match := re.fullmatch(r"\s*([^\s<>=!]+)\s*(>=|<=|>|<)\s*(-?[0-9.]+)\s*", text):
        return Constraint(_key(match[1]), match[2], match[3])  # type: ignore[arg-type]
    return parse(text)


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ConstraintSyntaxError(f"{text!r} is no key of a constraint")
    return text


def matches(constraint: Constraint, node: Node) -> bool:
    """The verdict for *node*."""
    key = constraint.key.lower()
    if key == "node.ip":
        return _matches_ip(constraint, node.underlay)
    found = value_of(constraint.key, node)
    if found is None:
        return False
    match constraint.operator:
        case "==":
            return found.lower() == constraint.value.lower()
        case "!=":
            return found.lower() != constraint.value.lower()
        case "in":
            return found.lower() in {v.lower() for v in constraint.values}
        case "not in":
            return found.lower() not in {v.lower() for v in constraint.values}
        case "exists":
            return found != ""
        case "not exists":
            return found == ""
        case "matches":
            return re.fullmatch(constraint.value, found) is not None
    try:
        one, two = float(found), float(constraint.value)
    except ValueError:
        return False
    return {">=": one >= two, "<=": one <= two, ">": one > two, "<": one < two}[constraint.operator]


def value_of(key: str, node: Node) -> str | None:
    """What *node* has for *key*: "" for a label that it lacks, None for a key that does not exist."""
    lower = key.lower()
    if lower.startswith("node.labels."):
        return dict(node.labels).get(key[12:], "")
    if lower.startswith("engine.labels."):
        return dict(node.info.labels).get(key[14:], "")
    plain = {
        "node.id": node.id,
        "node.hostname": node.info.hostname or node.name,
        "node.name": node.name,
        "node.role": "manager" if node.server or not node.target else "worker",
        "node.platform.os": node.info.os,
        "node.platform.arch": _MACHINES.get(node.info.arch, node.info.arch),
        "node.cpus": f"{node.info.cpus:g}",
        "node.memory": str(node.info.memory),
    }
    found = plain.get(lower)
    return _MACHINES.get(found, found) if found is not None else None


def _matches_ip(constraint: Constraint, address: str) -> bool:
    """Equal by value, or inside a CIDR; a malformed address fails whatever the operator."""
    try:
        wanted = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        inside = bool(address) and ipaddress.ip_address(address) in wanted
    except ValueError:
        inside = False
    return inside == (constraint.operator == "==")
