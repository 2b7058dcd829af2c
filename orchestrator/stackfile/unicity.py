"""Lists that say a thing once: a later entry for the same port, target, name or file takes the place of the earlier.

So a file changes what a file below it says, entry by entry. Source: Compose Specification, 13-merge.md, "Unique resources".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from agent.contract.options import OPTIONS, Kind
from orchestrator.stackfile.marked_document import MarkedDocument, Path_
from orchestrator.stackfile.mount_text import target_of
from orchestrator.stackfile.port_text import read_ports
from orchestrator.stackfile.problem import Mark, Problem

Key = Callable[[Any], Hashable]


def name(item: Any) -> Hashable:
    """NAME of NAME=VALUE."""
    return str(item).partition("=")[0]


def port(item: Any) -> Hashable:
    """What is published where; a range is its own text."""
    if isinstance(item, dict):
        return (
            str(item.get("host_ip") or ""),
            str(item.get("published") or ""),
            str(item.get("target")),
            str(item.get("protocol") or "tcp").lower(),
        )
    try:
        found = read_ports(str(item))
    except ValueError:
        return str(item)
    one = found[0]
    return str(item) if len(found) > 1 else (one.host_ip, one.published, str(one.target), one.protocol)


def volume(item: Any) -> Hashable:
    """The target of a volume."""
    target = item.get("target") if isinstance(item, dict) else target_of(str(item))
    return str(target).rstrip("/") or "/"


def device(item: Any) -> Hashable:
    """The path of a device in the container."""
    if isinstance(item, dict):
        return str(item.get("target") or item.get("source"))
    parts = str(item).split(":")
    return parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]


def granted(folder: str) -> Key:
    """The file that a config or secret becomes."""

    def key(item: Any) -> Hashable:
        body = item if isinstance(item, dict) else {"source": item}
        target = str(body.get("target") or body.get("source"))
        return target if target.startswith("/") else f"{folder}/{target}"

    return key


def env_file(item: Any) -> Hashable:
    """The path of a file of variables."""
    return str(item.get("path") if isinstance(item, dict) else item)


def build_secret(item: Any) -> Hashable:
    """The name that a build secret has in the build."""
    return str((item.get("target") or item.get("source")) if isinstance(item, dict) else item)


def tmpfs(item: Any) -> Hashable:
    """The target of a tmpfs mount."""
    return str(item).partition(":")[0].rstrip("/")


SERVICE: Mapping[tuple[str, ...], Key] = {
    ("ports",): port,
    ("volumes",): volume,
    ("devices",): device,
    ("tmpfs",): tmpfs,
    ("env_file",): env_file,
    ("label_file",): env_file,
    ("configs",): granted(""),
    ("secrets",): granted("/run/secrets"),
    ("build", "secrets"): build_secret,
    **{
        (key,): name
        for key in (
            *(o.key for o in OPTIONS if o.key and o.kind in (Kind.WORDS, Kind.WORD_OR_WORDS, Kind.PAIRS)),
            "dns_opt",
            "environment",
            "expose",
            "labels",
            "links",
            "profiles",
        )
    },
    **{("build", key): name for key in ("args", "labels", "additional_contexts", "tags", "platforms", "ssh")},
    ("deploy", "labels"): name,
    ("networks", "*", "aliases"): name,
    ("networks", "*", "link_local_ips"): name,
}
"""Lists of a service, by what makes two entries the same."""
REPORTED = {("volumes",), ("tmpfs",), ("configs",), ("secrets",), ("devices",)}
"""Of these the earlier entry of one and the same document is lost: a slip, which is reported."""


def once(tree: MarkedDocument, *, report: bool = False) -> MarkedDocument:
    """*tree* without the entries whose place a later one takes, each entry with its place in the file. *report*: it is one
    document, and what is lost of it becomes a note."""
    services = tree.value.get("services") if isinstance(tree.value, dict) else None
    if not isinstance(services, dict):
        return tree
    marks = dict(tree.marks)
    notes: list[Problem] = []
    changed = {}
    for service, body in services.items():
        for keys, key in SERVICE.items():
            for path in _places(body, keys):
                body = _unique(body, path, key, ("services", service), marks, notes if report and keys in REPORTED else None)
        changed[service] = body
    value = {**tree.value, "services": changed}
    return MarkedDocument(value, marks, tree.resets, tree.overrides, tree.variables, (*tree.notes, *notes))


def _places(body: Any, keys: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The places in *body* that *keys* mean, * being any."""
    if not keys:
        return [()]
    if not isinstance(body, dict):
        return []
    heads = body if keys[0] == "*" else [keys[0]] if keys[0] in body else []
    return [(head, *rest) for head in heads for rest in _places(body[head], keys[1:])]


def _unique(
    body: Any, path: tuple[str, ...], key: Key, above: Path_, marks: dict[Path_, Mark], notes: list[Problem] | None
) -> Any:
    if path:
        inner = _unique(body[path[0]], path[1:], key, (*above, path[0]), marks, notes)
        return body if inner is body[path[0]] else {**body, path[0]: inner}
    if not isinstance(body, list) or any(isinstance(item, list) for item in body):
        return body
    found: dict[Hashable, int] = {}
    for number, item in enumerate(body):
        one = key(item)
        if notes is not None and one in found and body[found[one]] != item:
            notes.append(
                Problem(
                    where=marks.get((*above, number), Mark("", 0, 0)),
                    what=str(above[-1]),
                    why=f"{one} is given twice: the last one counts",
                )
            )
        found[one] = number
    if len(found) == len(body):
        return body
    moved = {old: new for new, old in enumerate(found.values())}
    size = len(above)
    below = {p: marks.pop(p) for p in list(marks) if p[:size] == above and len(p) > size}
    marks.update(
        {(*above, moved[n], *p[size + 1 :]): m for p, m in below.items() if isinstance(n := p[size], int) and n in moved}
    )
    return [body[number] for number in moved]
