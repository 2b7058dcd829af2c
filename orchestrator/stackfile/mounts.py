"""`volumes:` and `tmpfs:` of a service. Source: Compose Specification, 05-services.md, "volumes"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.contract.container import Mount
from orchestrator.stackfile.field_readers import Fields, ServiceContext, flag, permissions, scalar, size
from orchestrator.stackfile.marked_document import Path_


def volumes(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    out = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        mount = _long_mount(draft, item, at) if isinstance(item, dict) else _short_mount(draft, scalar(item), at)
        if mount:
            out.append(mount)
    return {"mounts": tuple(out)}


def _short_mount(draft: ServiceContext, item: str, at: Path_) -> Mount | None:
    try:
        return split_mount(item, lambda text: str(draft.reading.host_path(text)))
    except ValueError as error:
        what, _, fix = str(error).partition("\n")
        draft.problem(at, what, fix)
        return None


def split_mount(text: str, host_path: Callable[[str], str]) -> Mount:
    """[SOURCE:]TARGET[:OPTIONS]. Raises ValueError: what is wrong, and on a second line the fix."""
    parts = text.split(":")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    options = parts[2].split(",") if len(parts) > 2 else []
    if len(parts) > 3 or not target.startswith("/"):
        raise ValueError(f"{text!r} is no mount: the target must be an absolute path\n[SOURCE:]TARGET[:OPTIONS]")
    known = {
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
    }
    if strange := [o for o in options if o not in known]:
        raise ValueError(f"mount option {strange[0]!r} is not known\none of {', '.join(sorted(known))}")
    propagation = next((o for o in options if o.lstrip("r") in ("private", "shared", "slave")), "rprivate")
    target = target.rstrip("/") or "/"
    if source.startswith(("/", ".", "~")):
        return Mount(
            kind="bind",
            source=host_path(source),
            target=target,
            read_only="ro" in options,
            propagation=propagation,
            create_host_path=True,
        )
    return Mount(kind="volume", source=source, target=target, read_only="ro" in options, nocopy="nocopy" in options)


def _long_mount(draft: ServiceContext, item: dict[str, Any], at: Path_) -> Mount | None:
    shape, target = item.get("type", "volume"), scalar(item.get("target"))
    if shape not in ("bind", "volume", "tmpfs", "image"):
        draft.reading.check((*at, "type"), f"type {shape!r} is not supported", "bind, volume, tmpfs or image")
        return None
    if not target.startswith("/"):
        draft.problem((*at, "target"), "must be an absolute path")
        return None
    source = scalar(item.get("source"))
    bind, volume, tmpfs = (draft.reading.mapping(item.get(k), (*at, k)) for k in ("bind", "volume", "tmpfs"))
    fields: Fields = {"kind": shape, "target": target.rstrip("/") or "/", "read_only": flag(item.get("read_only"))}
    if shape == "bind":
        if not source:
            draft.problem(at, "a bind mount needs its source")
            return None
        fields |= {
            "source": str(draft.reading.host_path(source)),
            "propagation": bind.get("propagation", "rprivate"),
            "create_host_path": flag(bind.get("create_host_path", True)),
            "recursive": bind.get("recursive", "enabled") != "disabled",
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
        if "size" in tmpfs:
            if str(tmpfs["size"]).startswith("-"):
                draft.problem((*at, "tmpfs", "size"), "must not be below 0")
            elif isinstance(tmpfs["size"], float):
                draft.problem((*at, "tmpfs", "size"), "must be whole bytes, or a size such as 64m")
            fields |= size("size")(draft, tmpfs["size"], (*at, "tmpfs", "size"))
        if "mode" in tmpfs:
            try:
                fields["mode"] = permissions(tmpfs["mode"])
            except ValueError:
                draft.problem((*at, "tmpfs", "mode"), f"{tmpfs['mode']!r} are no permission bits", "write 0755")
    return Mount(**fields)


def tmpfs(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    out = []
    for number, item in enumerate(value if isinstance(value, list) else [value]):
        target, _, options = scalar(item).partition(":")
        if not target.startswith("/"):
            draft.problem((*path, number), f"{target!r} must be an absolute path")
            continue
        out.append(Mount(kind="tmpfs", target=target, options=tuple(o for o in options.split(",") if o)))
    return {"tmpfs_mounts": tuple(out)}
