"""What two files say about one key. Source: Compose Specification, 13-merge.md.

Mappings merge, lists append, scalars are replaced; the table lists the keys that do otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.stackfile.marked_document import MarkedDocument, Path_, without

Rule = Callable[[Any, Any], Any]


def replace(base: Any, over: Any) -> Any:
    del base
    return over


def by_key(base: Any, over: Any) -> Any:
    """Lists of NAME=VALUE and mappings are the same thing."""
    return {**as_mapping(base), **as_mapping(over)}


def as_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for item in value or ():
        key, eq, rest = str(item).partition("=")
        out[key] = rest if eq else None
    return out


def unique(base: Any, over: Any) -> Any:
    """Append what is not there yet."""
    base, over = _listed(base), _listed(over)
    return base + [item for item in over if item not in base]


def by_target(base: Any, over: Any) -> Any:
    """Mounts: a later one for the same target replaces the earlier."""

    def target(item: Any) -> Any:
        if isinstance(item, dict):
            return item.get("target")
        parts = str(item).split(":")
        return parts[1] if len(parts) > 1 else parts[0]

    found = {target(item): item for item in [*(base or ()), *(over or ())]}
    return list(found.values())


def logging(base: Any, over: Any) -> Any:
    """Options are one driver's: another driver does not take them over."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if base.get("driver") and over.get("driver") and base["driver"] != over["driver"]:
        return over
    return merge_values(base, over, ("logging",))


def by_subnet(base: Any, over: Any) -> Any:
    """Address pools: one of the same subnet is changed, others are added."""
    out = [dict(pool) if isinstance(pool, dict) else pool for pool in _listed(base)]
    for pool in _listed(over):
        subnet = pool.get("subnet") if isinstance(pool, dict) else None
        old = next((p for p in out if subnet and isinstance(p, dict) and p.get("subnet") == subnet), None)
        if old is None:
            out.append(pool)
        else:
            old.update(merge_values(old, pool, ("pool",)))
    return out


def names(base: Any, over: Any) -> Any:
    """Lists of names and mappings by name: networks, depends_on."""
    if isinstance(base, list) and isinstance(over, list):
        return unique(base, over)
    left = dict.fromkeys(base) if isinstance(base, list) else base
    right = dict.fromkeys(over) if isinstance(over, list) else over
    return merge_values(left, right, ("names",))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] if value is not None else []


RULES: dict[tuple[str, ...], Rule] = {
    ("services", "*", "command"): replace,
    ("services", "*", "entrypoint"): replace,
    ("services", "*", "healthcheck", "test"): replace,
    ("services", "*", "environment"): by_key,
    ("services", "*", "labels"): by_key,
    ("services", "*", "annotations"): by_key,
    ("services", "*", "sysctls"): by_key,
    ("services", "*", "build", "args"): by_key,
    ("services", "*", "build", "labels"): by_key,
    ("services", "*", "deploy", "labels"): by_key,
    ("services", "*", "logging"): logging,
    ("services", "*", "links"): unique,
    ("services", "*", "external_links"): unique,
    ("services", "*", "cap_add"): unique,
    ("services", "*", "cap_drop"): unique,
    ("services", "*", "security_opt"): unique,
    ("services", "*", "group_add"): unique,
    ("services", "*", "volumes_from"): unique,
    ("services", "*", "device_cgroup_rules"): unique,
    ("services", "*", "profiles"): unique,
    ("services", "*", "extra_hosts"): unique,
    ("services", "*", "dns"): unique,
    ("services", "*", "dns_search"): unique,
    ("services", "*", "dns_opt"): unique,
    ("services", "*", "env_file"): unique,
    ("services", "*", "ports"): unique,
    ("services", "*", "expose"): unique,
    ("services", "*", "tmpfs"): unique,
    ("services", "*", "volumes"): by_target,
    ("services", "*", "devices"): by_target,
    ("services", "*", "networks"): names,
    ("services", "*", "depends_on"): names,
    ("networks", "*", "labels"): by_key,
    ("networks", "*", "ipam", "config"): by_subnet,
    ("volumes", "*", "labels"): by_key,
}


def merge_values(base: Any, over: Any, path: tuple[str, ...]) -> Any:
    if base is None or over is None:
        return base if over is None else over
    star = tuple("*" if i == 1 else part for i, part in enumerate(path))
    if rule := RULES.get(star):
        return rule(base, over)
    if path[-1:] == ("build",) and isinstance(base, str) != isinstance(over, str):
        base, over = ({"context": v} if isinstance(v, str) else v for v in (base, over))
    if isinstance(base, dict) and isinstance(over, dict):
        out = dict(base)
        for key, value in over.items():
            out[key] = merge_values(base[key], value, (*path, key)) if key in base else value
        return out
    if isinstance(base, list) and isinstance(over, list):
        return base + over
    return over


def merge(base: MarkedDocument, over: MarkedDocument) -> MarkedDocument:
    """*over* laid on *base*, its `!reset` and `!override` obeyed; marks of the later file win, those of appended list
    items point at their mapping."""
    below, above = base.value, over.value
    for path in over.resets:
        below, above = without(below, path), without(above, path)
    for path in over.overrides:
        below = without(below, path)
    value = merge_values(below, above, ())
    marks: dict[Path_, Any] = dict(base.marks)
    marks.update({p: m for p, m in over.marks.items() if not any(isinstance(part, int) for part in p) or p not in marks})
    return MarkedDocument(value, marks)
