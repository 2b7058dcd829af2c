"""Bind mounts of the project's own small files, sent along to whichever node needs them.

A node that is not the client's host has none of its files. What is small and can be taken as it is, a file, or a folder that is
mounted read-only, goes the way of secrets: sealed, addressed by content, so that a changed file rolls exactly its users.
Everything else stays a bind mount, which keeps its service on the server's node.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.contract.container import File, Mount
from orchestrator.stackfile.model import Service, Stack, StackContent

LARGEST, TOGETHER, MAX_INLINE_BYTES = 512 << 10, 1 << 20, 64
"""Bytes of one file, bytes of a folder, and files of one."""


def has_inlinable_mounts(stack: Stack, top: Path) -> bool:
    """Whether anything could be sent along, or binds its service to the client's host: asked before the cluster is."""
    return any(_is_in_project(mount, top) for service in stack.services for mount in service.container.mounts)


def inline_bind_mounts(stack: Stack, top: Path) -> tuple[Stack, tuple[str, ...]]:
    """*stack* with what can be sent along in place of bind mounts below the folder *top*, and the others below it marked as the
    project's own; and a sentence for each that is sent along."""
    contents: dict[str, StackContent] = {}
    notes: list[str] = []
    services = []
    for service in stack.services:
        mounts, files = [], list(service.container.files)
        for mount in service.container.mounts:
            inlined = _inline_mount(mount, top) if _is_ours(mount, top) else None
            if inlined is None:
                mounts.append(mount)
                continue
            for target, path in inlined:
                one = _content(stack, service, path, top)
                contents[one.key] = one
                status = path.stat()
                files.append(
                    File(
                        target=target,
                        source=one.key,
                        mode=stat.S_IMODE(status.st_mode),
                        uid=status.st_uid,
                        gid=status.st_gid,
                        secret=True,
                    )
                )
            size = sum(path.stat().st_size for _, path in inlined)
            notes.append(
                f"{service.where}: {service.name}: {Path(mount.source).relative_to(top)} is sent along as it is now "
                f"({size} bytes): when it changes, `up` again"
            )
        container = msgspec.structs.replace(service.container, mounts=tuple(mounts), files=tuple(files))
        own = tuple(mount.source for mount in mounts if _is_in_project(mount, top))
        services.append(msgspec.structs.replace(service, container=container, project_paths=own))
    changed = msgspec.structs.replace(stack, services=tuple(services), contents=(*stack.contents, *contents.values()))
    return changed, tuple(dict.fromkeys(notes))


def _is_in_project(mount: Mount, top: Path) -> bool:
    return mount.kind == "bind" and top != Path("/") and Path(mount.source).is_relative_to(top)


def _is_ours(mount: Mount, top: Path) -> bool:
    return _is_in_project(mount, top) and not mount.subpath and Path(mount.source) != top


def _inline_mount(mount: Mount, top: Path) -> list[tuple[str, Path]] | None:
    """(where in the container, file) of what a mount shows; None where it cannot be taken along."""
    source = Path(mount.source)
    try:
        if not source.resolve().is_relative_to(top.resolve()):
            return None
        if source.is_file():
            return [(mount.target, source)] if source.stat().st_size <= LARGEST else None
        if not source.is_dir() or not mount.read_only:
            return None
        found = list(_below(source))
        sizes = [path.stat().st_size for path in found]
    except (OSError, ValueError):
        return None
    if not found or len(found) > MAX_INLINE_BYTES or sum(sizes) > TOGETHER or max(sizes) > LARGEST:
        return None
    return [(f"{mount.target.rstrip('/')}/{path.relative_to(source)}", path) for path in found]


def _below(folder: Path) -> Iterator[Path]:
    """Regular files, in order. Raises ValueError for what is neither that nor a folder."""
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            yield path
        elif not stat.S_ISDIR(mode):
            raise ValueError(f"{path} is not a plain file")


def _content(stack: Stack, service: Service, path: Path, top: Path) -> StackContent:
    name = str(path.relative_to(top))
    return StackContent(
        kind="secret", key=f"./{name}", name=f"{stack.name}_./{name}", content=path.read_bytes(), where=service.where
    )
