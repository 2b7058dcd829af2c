"""`volumes:` and `tmpfs:` of a service. Source: Compose Specification, 05-services.md, "volumes"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.contract import selinux
from agent.contract.container import Mount
from orchestrator.stackfile.field_readers import Fields, ServiceContext, flag, permissions, scalar, size
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.mount_text import converted, is_path, is_windows, parts_of
from orchestrator.stackfile.problem import ShortFormError


def volumes(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.volumes, short and long form."""
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        mount = _long_mount(draft, item, at) if isinstance(item, dict) else _short_mount(draft, scalar(item), at)
        if mount:
            if any(is_windows(path) for path in (mount.source, mount.target)):
                draft.keep_from_starting(at, "a path of Windows: there is no such path on a node")
            elif not mount.target.startswith("/"):
                draft.keep_from_starting(at, f"the target {mount.target!r} must be an absolute path")
            out.append(mount)
    return {"mounts": tuple(out)}


def _short_mount(draft: ServiceContext, item: str, at: Path_) -> Mount | None:
    try:
        mount, ignored = split_mount(item, lambda text: bind_source(draft, text))
    except ShortFormError as error:
        draft.problem(at, error.what, error.fix)
        return None
    for option in ignored:
        draft.reading.warn(at, f"option {option!r} is not known and has no effect")
    return mount


def bind_source(draft: ServiceContext, text: str) -> str:
    """The path of the host that *text* is."""
    if is_windows(text):
        return converted(text) if converts(draft.reading.environment) else text
    return str(draft.reading.host_path(text))


def converts(environment: Mapping[str, str]) -> bool:
    """Whether paths of Windows are to be written as a Linux host has them."""
    return environment.get("COMPOSE_CONVERT_WINDOWS_PATHS", "").lower() in ("1", "true")


OPTIONS = frozenset(
    (
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "cached",
        "delegated",
        "consistent",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
    )
)


def split_mount(text: str, host_path: Callable[[str], str]) -> tuple[Mount, tuple[str, ...]]:
    """[SOURCE:]TARGET[:OPTIONS], and the options that are not known. Raises ShortFormError."""
    parts = parts_of(text)
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    options = parts[2].split(",") if len(parts) > 2 else []
    if len(parts) > 3 or not all(parts):
        why = "more than three parts" if len(parts) > 3 else "an empty part"
        raise ShortFormError(f"{text!r} is not a mount: it has {why}", "[SOURCE:]TARGET[:OPTIONS]")
    ignored = tuple(o for o in options if o not in OPTIONS)
    try:
        label = selinux.relabelling(options)
    except ValueError as error:
        raise ShortFormError(f"{text!r}: {error}", "z for all containers, Z for this one alone") from None
    propagation = next((o for o in options if o.lstrip("r") in ("private", "shared", "slave")), "rprivate")
    target = target.rstrip("/") or "/"
    if is_path(source):
        return Mount(
            kind="bind",
            source=host_path(source),
            target=target,
            read_only="ro" in options,
            propagation=propagation,
            create_host_path=True,
            selinux=label,
        ), ignored
    mount = Mount(
        kind="volume",
        source=source,
        target=target,
        read_only="ro" in options,
        nocopy="nocopy" in options,
        selinux=label,
    )
    return mount, ignored


def _long_mount(draft: ServiceContext, item: dict[str, Any], at: Path_) -> Mount | None:
    shape, target = item.get("type", "volume"), scalar(item.get("target"))
    if shape not in ("bind", "volume", "tmpfs", "image"):
        why = "is of Windows containers" if shape == "npipe" else "needs a plugin for cluster volumes, which there is not"
        draft.keep_from_starting((*at, "type"), f"type {shape!r} {why}")
        return None
    if not target:
        draft.problem(at, "needs target")
        return None
    source = scalar(item.get("source"))
    bind, volume, tmpfs = (draft.reading.mapping(item.get(k), (*at, k)) for k in ("bind", "volume", "tmpfs"))
    fields: Fields = {"kind": shape, "target": target.rstrip("/") or "/", "read_only": flag(item.get("read_only"))}
    if shape == "bind":
        if not source:
            draft.problem(at, "a bind mount needs its source")
            return None
        fields |= {
            "source": bind_source(draft, source),
            "propagation": bind.get("propagation", "rprivate"),
            "create_host_path": flag(bind.get("create_host_path", True)),
            "recursive": bind.get("recursive", "enabled") != "disabled",
            "selinux": bind.get("selinux", ""),
        }
    elif shape == "image":
        if not source:
            draft.problem(at, "an image mount needs its source")
            return None
        image = draft.reading.mapping(item.get("image"), (*at, "image"))
        fields |= {"source": source, "subpath": scalar(image.get("subpath")), "read_only": True}
    elif shape == "volume":
        fields |= {"source": source, "nocopy": flag(volume.get("nocopy")), "subpath": scalar(volume.get("subpath"))}
    else:
        fields |= _tmpfs(draft, tmpfs, (*at, "tmpfs"))
    return Mount(**fields)


def _tmpfs(draft: ServiceContext, options: dict[str, Any], at: Path_) -> Fields:
    fields: Fields = {}
    if "size" in options:
        if str(options["size"]).startswith("-"):
            draft.problem((*at, "size"), "must not be below 0")
        elif isinstance(options["size"], float):
            draft.problem((*at, "size"), "must be whole bytes, or a size such as 64m")
        fields |= size("size")(draft, options["size"], (*at, "size"))
    if "mode" in options:
        try:
            fields["mode"] = permissions(options["mode"])
        except ValueError:
            draft.problem((*at, "mode"), f"{options['mode']!r} are not permission bits", "write 0755")
    return fields


def tmpfs(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.tmpfs: one TARGET[:OPTIONS] or a list of them."""
    out = []
    for number, item in enumerate(value if isinstance(value, list) else [value]):
        target, _, options = scalar(item).partition(":")
        if not target.startswith("/"):
            draft.keep_from_starting((*path, number), f"{target!r} must be an absolute path")
            continue
        out.append(Mount(kind="tmpfs", target=target, options=tuple(o for o in options.split(",") if o)))
    return {"tmpfs_mounts": tuple(out)}
