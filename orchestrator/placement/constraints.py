"""Placement constraints: what each means on a node, with Swarm's verdicts.

Swarm knows only `==` and `!=`: values are compared without regard to case and have no wildcards, a label that a node does not
have counts as "", and a constraint on an unknown key never holds. The grammar is in `stackfile/constraints.py`. Source:
Docker's documentation of `--constraint`, and behaviour observed.
"""

from __future__ import annotations

import ipaddress
import re

from orchestrator.placement.node import Node
from orchestrator.stackfile.constraints import Constraint

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def matches(constraint: Constraint, node: Node) -> bool:
    """Whether *constraint* holds on *node*."""
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
    """The value of *key* on *node*: "" for a label that it does not have, None for a key that does not exist."""
    lower = key.lower()
    if lower.startswith("node.labels."):
        return dict(node.labels).get(key[12:], "")
    if lower.startswith("engine.labels."):
        return dict(node.info.labels).get(key[14:], "")
    plain = {
        "node.id": node.id,
        "node.hostname": node.info.hostname or node.name,
        "node.name": node.name,
        "node.role": "manager" if node.server or node.is_servers_own else "worker",
        "node.platform.os": node.info.os,
        "node.platform.arch": _MACHINES.get(node.info.arch, node.info.arch),
        "node.cpus": f"{node.info.cpus:g}",
        "node.memory": str(node.info.memory),
    }
    found = plain.get(lower)
    return _MACHINES.get(found, found) if found is not None else None


def _matches_ip(constraint: Constraint, address: str) -> bool:
    """Equal by value, or inside a CIDR. A malformed address fails with every operator."""
    try:
        wanted = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        inside = bool(address) and ipaddress.ip_address(address) in wanted
    except ValueError:
        inside = False
    return inside == (constraint.operator == "==")
