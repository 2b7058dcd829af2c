"""What two files say about one key. Source: Compose Specification, 13-merge.md.

Mappings merge, lists append, scalars are replaced; the table lists the keys that do otherwise. What a list may say only once
is `unicity.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.contract.options import OPTIONS, Kind
from orchestrator.stackfile.load_context import dotted, kind
from orchestrator.stackfile.marked_document import MarkedDocument, Path_, without
from orchestrator.stackfile.problem import Mark, Problem, StackFileError
from orchestrator.stackfile.unicity import once

Rule = Callable[[Any, Any, Path_], Any]


class ClashError(Exception):
    """A mapping or list on one side, something else on the other: neither is a change of the other."""

    def __init__(self, path: Path_, base: Any, over: Any) -> None:
        super().__init__(path, base, over)
        self.path, self.base, self.over = path, base, over


def replace(base: Any, over: Any, path: Path_) -> Any:
    """The later value replaces the earlier one."""
    del base, path
    return over


def by_key(base: Any, over: Any, path: Path_) -> Any:
    """Lists of NAME=VALUE and mappings are the same thing."""
    if not isinstance(base, (dict, list)) or not isinstance(over, (dict, list)):
        raise ClashError(path, base, over)
    return {**as_mapping(base), **as_mapping(over)}


def as_mapping(value: Any) -> dict[str, Any]:
    """A mapping, or a list of NAME=VALUE, as a dict; a name without = has the value None."""
    if isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for item in value or ():
        key, eq, rest = str(item).partition("=")
        out[key] = rest if eq else None
    return out


def unique(base: Any, over: Any, path: Path_) -> Any:
    """Append what is not there yet."""
    base, over = _listed(base), _listed(over)
    return base + [item for item in over if item not in base]


def append(base: Any, over: Any, path: Path_) -> Any:
    """Lists, or one text in place of a list of one. `unicity` says which of them count as one."""
    return _listed(base) + _listed(over)


def hosts(base: Any, over: Any, path: Path_) -> Any:
    """NAME:ADDRESS lists and mappings; a name may have several addresses."""
    out = _host_lines(base)
    seen = {_host(line) for line in out}
    return out + [line for line in _host_lines(over) if _host(line) not in seen]


def _host(line: Any) -> str:
    return str(line) if "=" in str(line) else str(line).replace(":", "=", 1)


def _host_lines(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return _listed(value)
    return [f"{name}={address}" for name, given in value.items() for address in (given if isinstance(given, list) else [given])]


def logging(base: Any, over: Any, path: Path_) -> Any:
    """Options are one driver's: another driver does not take them over."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        raise ClashError(path, base, over)
    if base.get("driver") and over.get("driver") and base["driver"] != over["driver"]:
        return over
    return _mappings(base, over, path)


def by_subnet(base: Any, over: Any, path: Path_) -> Any:
    """Address pools: those of the later file, each over one of the same subnet that is there."""
    there = {str(p.get("subnet")): p for p in _listed(base) if isinstance(p, dict)}
    return [
        _mappings(there[str(p.get("subnet"))], p, (*path, "*")) if isinstance(p, dict) and str(p.get("subnet")) in there else p
        for p in _listed(over)
    ]


def names(base: Any, over: Any, path: Path_) -> Any:
    """Lists of names and mappings by name: networks, models."""
    return _by_name(base, over, path, lambda: None)


def dependencies(base: Any, over: Any, path: Path_) -> Any:
    """A list of services says of each that it must be started."""
    return _by_name(base, over, path, lambda: {"condition": "service_started", "required": True})


def _by_name(base: Any, over: Any, path: Path_, plain: Callable[[], Any]) -> Any:
    """Mappings, and lists as mappings of their names to what *plain* makes."""
    for side in (base, over):
        if isinstance(side, list) and not all(isinstance(name, str) for name in side):
            return side  # reported as a problem, once all is merged
    left, right = ({name: plain() for name in v} if isinstance(v, list) else v for v in (base, over))
    return _mappings(left, right, path)


def build(base: Any, over: Any, path: Path_) -> Any:
    """Text is the context."""
    left, right = ({"context": v} if isinstance(v, str) else v for v in (base, over))
    return _mappings(left, right, path)


def limit(base: Any, over: Any, path: Path_) -> Any:
    """One number is both limits."""
    return _mappings(base, over, path) if isinstance(base, dict) and isinstance(over, dict) else over


def all_or_listed(base: Any, over: Any, path: Path_) -> Any:
    """Two lists are joined; with anything else the later value replaces the earlier one."""
    return base + over if isinstance(base, list) and isinstance(over, list) else over


def _mappings(base: Any, over: Any, path: Path_) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        raise ClashError(path, base, over)
    out = dict(base)
    for key, value in over.items():
        out[key] = merge_values(base[key], value, (*path, key)) if key in base else value
    return out


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] if value is not None else []


_OF_KIND = {Kind.WORDS: unique, Kind.WORD_OR_WORDS: append, Kind.PAIRS: by_key}
RULES: Mapping[tuple[str, ...], Rule] = {
    **{("services", "*", o.key): _OF_KIND[o.kind] for o in OPTIONS if o.key and o.kind in _OF_KIND},
    ("services", "*", "command"): replace,
    ("services", "*", "entrypoint"): replace,
    ("services", "*", "healthcheck", "test"): replace,
    ("services", "*", "environment"): by_key,
    ("services", "*", "labels"): by_key,
    ("services", "*", "build"): build,
    ("services", "*", "build", "args"): by_key,
    ("services", "*", "build", "labels"): by_key,
    ("services", "*", "build", "additional_contexts"): by_key,
    ("services", "*", "build", "ssh"): by_key,
    ("services", "*", "build", "extra_hosts"): hosts,
    ("services", "*", "build", "no_cache_filter"): append,
    ("services", "*", "build", "ulimits", "*"): limit,
    ("services", "*", "deploy", "labels"): by_key,
    ("services", "*", "logging"): logging,
    ("services", "*", "ulimits", "*"): limit,
    ("services", "*", "links"): unique,
    ("services", "*", "external_links"): unique,
    ("services", "*", "security_opt"): unique,
    ("services", "*", "group_add"): unique,
    ("services", "*", "profiles"): unique,
    ("services", "*", "extra_hosts"): hosts,
    ("services", "*", "dns_opt"): append,
    ("services", "*", "env_file"): append,
    ("services", "*", "label_file"): append,
    ("services", "*", "tmpfs"): append,
    ("services", "*", "gpus"): all_or_listed,
    ("services", "*", "networks"): names,
    ("services", "*", "models"): names,
    ("services", "*", "depends_on"): dependencies,
    ("services", "*", "develop", "watch", "*", "ignore"): append,
    ("networks", "*", "labels"): by_key,
    ("networks", "*", "external"): replace,
    ("networks", "*", "ipam", "config"): by_subnet,
    ("volumes", "*", "labels"): by_key,
    ("volumes", "*", "external"): replace,
    ("configs", "*", "labels"): by_key,
    ("configs", "*", "external"): replace,
    ("secrets", "*", "labels"): by_key,
    ("secrets", "*", "external"): replace,
}
EMPTIED = {("services", "*", "command"), ("services", "*", "entrypoint")}
"""Keys of which null says something: the image's own."""
_ANY = {
    ("services",),
    ("networks",),
    ("volumes",),
    ("configs",),
    ("secrets",),
    ("services", "*", "ulimits"),
    ("services", "*", "build", "ulimits"),
}
"""Mappings whose keys are names."""


def _pattern(path: Path_) -> tuple[str, ...]:
    out: tuple[str, ...] = ()
    for part in path:
        out = (*out, "*" if out in _ANY else str(part))
    return out


def merge_values(base: Any, over: Any, path: Path_) -> Any:
    """Raises ClashError."""
    pattern = _pattern(path)
    if pattern in EMPTIED and over is None:
        return None
    if base is None or over is None:
        return base if over is None else over
    if rule := RULES.get(pattern):
        return rule(base, over, path)
    if isinstance(base, dict):
        return _mappings(base, over, path)
    if isinstance(base, list):
        if not isinstance(over, list):
            raise ClashError(path, base, over)
        return base + over
    return over


def merge(base: MarkedDocument, over: MarkedDocument) -> MarkedDocument:
    """*over* laid on *base*, its `!reset` and `!override` obeyed. What is new or changed has the place of the later file.

    Raises StackFileError where the two cannot be one."""
    below, above = base.value, over.value
    for path in over.resets:
        below, above = without(below, path), without(above, path)
    for path in over.overrides:
        below = without(below, path)
    try:
        value = merge_values(below, above, ())
    except ClashError as clash:
        raise StackFileError(
            [
                Problem(
                    where=over.mark(clash.path),
                    what=dotted(clash.path),
                    fix="write it in the same form, or put !override before it",
                    why=f"{kind(clash.over)} cannot be laid over {kind(clash.base)} ({base.mark(clash.path)})",
                )
            ]
        ) from None
    marks = {p: m for tree in (base, over) for p, m in tree.marks.items() if not any(isinstance(part, int) for part in p)}
    _mark_items(value, (), (above, over.marks), (below, base.marks), marks)
    return once(
        MarkedDocument(
            value,
            marks,
            variables={**base.variables, **over.variables},
            notes=(*base.notes, *over.notes),
        )
    )


Side = tuple[Any, Mapping[Path_, Mark]]


def _mark_items(value: Any, path: Path_, over: Side, base: Side, marks: dict[Path_, Mark]) -> None:
    """The places of the items of lists in *value*, which is made of *over* and *base*: where the side that has one says it."""

    def inner(side: Any, key: str) -> Any:
        return side.get(key) if isinstance(side, dict) else None

    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                _mark_items(item, (*path, key), (inner(over[0], key), over[1]), (inner(base[0], key), base[1]), marks)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for there, known in (over, base):
                found = next((i for i, v in enumerate(there) if v is item), None) if isinstance(there, list) else None
                if found is not None:
                    _take(item, (*path, found), (*path, number), known, marks)
                    break


def _take(value: Any, old: Path_, new: Path_, known: Mapping[Path_, Mark], marks: dict[Path_, Mark]) -> None:
    if old in known:
        marks[new] = known[old]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in parts:
        _take(item, (*old, key), (*new, key), known, marks)
