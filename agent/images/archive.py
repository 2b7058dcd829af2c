"""Images from and to files: docker-archive (`docker save`), OCI archives and layouts, and plain root file systems.

Members of an archive are read by name from its table, which a worker makes; no file is extracted to the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from agent.contract.container import Container
from agent.contract.printable import quoted
from agent.contract.times import timestamp
from agent.errors import AgentError, BadRequestError, ImageError, of_worker
from agent.images import documents, types
from agent.images.platforms import architecture, own
from agent.images.pull import choose, first
from agent.images.reference import DIGEST, Reference, parse
from agent.images.store import Image, ImageStore, mountable
from agent.trees import process
from agent.trees.tree import Tree

T = TypeVar("T")
MAX_CONCURRENT = 4
"""Layers that are unpacked side by side, as in a pull."""


class _Layout:
    """Files by name, of a tar file or of a directory. Raises ImageError for one that is not there, or is too large."""

    def __init__(self, path: Path, plain: Path) -> None:
        self._path, self._plain = path, plain
        self._tree: Tree | None = None
        self._members: dict[str, tuple[int, int]] = {}
        self._file: Path = path

    async def open_table(self, bounds: str) -> None:
        """Read the table; call this first. Raises BadRequestError if the file is not an archive."""
        if self._path.is_dir():
            self._tree = Tree.at(self._path, links=False)
            return
        reply = await process.asked("members", (str(self._path), str(self._plain), bounds))
        if "error" in reply:
            raise of_worker(reply, BadRequestError, "this is not an image archive: ")
        self._members = reply["members"]
        self._file = self._plain if reply["plain"] else self._path

    def close(self) -> None:
        if self._tree:
            self._tree.close()
        self._plain.unlink(missing_ok=True)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """The file, at the first byte of it, and how many bytes there are to read."""
        try:
            if self._tree:
                file = os.fdopen(self._tree.open_file(name), "rb")
                return file, os.fstat(file.fileno()).st_size
            offset, size = self._members[posixpath.normpath(name)]
        except (OSError, KeyError):
            raise ImageError(f"the image archive lacks {quoted(name)}") from None
        file = self._file.open("rb")
        file.seek(offset)
        return file, size

    def read(self, name: str, most: int) -> bytes:
        file, size = self.open(name)
        with file:
            if size > most:
                raise ImageError(f"{quoted(name)} of the image archive has {size} bytes, and {most} are allowed")
            return file.read(size)

    def has(self, name: str) -> bool:
        try:
            self.open(name)[0].close()
        except ImageError:
            return False
        return True

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        file, left = self.open(name)
        with file:
            while left and (chunk := await asyncio.to_thread(file.read, min(left, 1 << 20))):
                left -= len(chunk)
                yield chunk
        if left:
            raise ImageError(f"the image archive ends within {quoted(name)}")


async def _stream(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, 1 << 20):
        yield chunk


async def load(store: ImageStore, path: Path) -> list[str]:
    """Take every image of an archive or layout into the store; returns their familiar names (or digests)."""
    layout = _Layout(path, store.root / f"plain-{secrets.token_hex(8)}.tmp")
    try:
        await layout.open_table(store.bounds)
        # `docker save` since 25 writes both forms: the OCI one is the exact one
        if layout.has("index.json"):
            return await _load_oci(store, layout)
        if layout.has("manifest.json"):
            return await _load_docker(store, layout)
    finally:
        layout.close()
    raise BadRequestError("this is not an image archive: it has neither index.json (OCI) nor manifest.json (Docker)")


def _blob(digest: str) -> str:
    if not DIGEST.match(digest):
        raise ImageError(f"digest {quoted(digest)} is not sha256: and 64 hex digits")
    return f"blobs/sha256/{digest[7:]}"


async def _each(work: Callable[[str, str], Awaitable[T]], layers: Sequence[str], diff_ids: Sequence[str]) -> list[T]:
    """The results of *work* for each layer and its DiffID, in their order; a few run concurrently. Raises their first error."""
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def one(layer: str, diff_id: str) -> T:
        async with limit:
            return await work(layer, diff_id)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in zip(layers, diff_ids, strict=True)]
    except* (AgentError, OSError) as errors:
        raise first(errors) from None
    return [task.result() for task in tasks]


async def _load_oci(store: ImageStore, layout: _Layout) -> list[str]:
    limits = store.limits
    index = documents.index(layout.read("index.json", limits.manifest_bytes), "the index.json of the archive", limits)
    loaded = []

    async def unpack(digest: str, diff_id: str) -> None:
        if not (store.has_layer(diff_id) and store.has_blob(digest)):
            await store.unpack(layout.stream(_blob(digest)), digest=digest, diff_id=diff_id)

    for entry in index.manifests:
        name = entry.annotations.get("io.containerd.image.name") or entry.annotations.get(
            "org.opencontainers.image.ref.name", ""
        )
        # an annotation may be a bare tag, which names nothing
        reference = parse(name if ":" in name or "/" in name else f"loaded:{name}") if name else None
        digest = entry.digest
        data = layout.read(_blob(digest), limits.manifest_bytes)
        if entry.media_type in types.INDEXES:
            digest = choose(documents.index(data, f"the index {digest} of the archive", limits), own()).digest
            data = layout.read(_blob(digest), limits.manifest_bytes)
        manifest = documents.manifest(data, f"the manifest {digest} of the archive", limits)
        raw = layout.read(_blob(manifest.config.digest), limits.config_bytes)
        what = f"the config {manifest.config.digest} of the archive"
        config = documents.config(raw, what, limits, layers=len(manifest.layers))
        await _each(unpack, [layer.digest for layer in manifest.layers], config.rootfs.diff_ids)
        store.put_blob(raw, manifest.config.digest)
        store.put_blob(data, digest)
        if reference:
            store.tag(reference, digest)
            loaded.append(reference.familiar)
        else:
            store.keep_untagged(digest)
            loaded.append(digest)
    return loaded


async def _load_docker(store: ImageStore, layout: _Layout) -> list[str]:
    limits = store.limits
    loaded = []

    async def unpack(name: str, diff_id: str) -> types.Descriptor:
        reply = await store.unpack(layout.stream(name), digest="", diff_id=diff_id)
        digest = str(reply["digest"]) or diff_id
        return types.Descriptor(types.OCI_LAYER, digest, store.blob(digest).stat().st_size)

    data = layout.read("manifest.json", limits.manifest_bytes)
    for entry in documents.saved(data, "the manifest.json of the archive", limits):
        references = [parse(name) for name in entry.repo_tags or ()]
        raw = layout.read(entry.config, limits.config_bytes)
        config = documents.config(raw, f"the config {quoted(entry.config)} of the archive", limits, layers=len(entry.layers))
        layers = await _each(unpack, entry.layers, config.rootfs.diff_ids)
        digest = _commit(store, raw, layers)
        for reference in references:
            store.tag(reference, digest)
            loaded.append(reference.familiar)
        if not references:
            store.keep_untagged(digest)
            loaded.append(digest)
    return loaded


def _commit(store: ImageStore, config: bytes, layers: Sequence[types.Descriptor]) -> str:
    """Write config and manifest; returns the manifest's digest."""
    descriptor = types.Descriptor(types.OCI_CONFIG, store.put_blob(config), len(config))
    return store.put_blob(msgspec.json.encode(types.ImageManifest(descriptor, tuple(layers))))


async def import_rootfs(
    store: ImageStore,
    source: AsyncIterator[bytes],
    reference: Reference,
    changes: types.RunConfig | None = None,
    comment: str = "",
) -> Image:
    """Make a one-layer image of a root file system's tar stream (plain, gzip or zstd); of nothing at all, an empty one."""
    reply = await store.unpack(_or_empty(source), digest="", diff_id="")
    size = store.blob(str(reply["digest"])).stat().st_size
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": (made := timestamp()),
        "config": msgspec.to_builtins(changes or types.RunConfig()),
        "rootfs": {"type": "layers", "diff_ids": [reply["diff_id"]]},
        "history": [{"created": made, "comment": comment}],
    }
    layer = types.Descriptor(types.OCI_LAYER, str(reply["digest"]), size)
    digest = _commit(store, json.dumps(config).encode(), [layer])
    store.tag(reference, digest)
    return store.image(digest)


async def _or_empty(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """*source*, or a tar without entries where it has not a byte."""
    there = False
    async for data in source:
        there = there or bool(data)
        yield data
    if not there:
        yield b"\0" * 1024


async def commit(
    store: ImageStore,
    base: Image,
    container: Container,
    layer: AsyncIterator[bytes],
    changes: types.RunConfig | None,
    *,
    author: str = "",
    comment: str = "",
) -> Image:
    """An image of *base* with one more *layer*, configured as *container* with *changes*, whose entrypoint drops the old
    command. Raises ImageError if that is one layer too many."""
    mountable("of this commit", [*base.layers, "one more"])
    reply = await store.unpack(layer, digest="", diff_id="")
    size = store.blob(str(reply["digest"])).stat().st_size
    document = json.loads(store.blob(base.id).read_bytes())
    now = timestamp()
    config = document.get("config") or {}
    own: dict[str, Any] = {
        "Env": [f"{k}={v}" for k, v in container.environment],
        "User": container.user,
        "WorkingDir": container.working_dir,
        "Cmd": container.command,
        "Entrypoint": container.entrypoint,
    }
    given = {k: v for k, v in msgspec.to_builtins(changes or types.RunConfig()).items() if v}
    merged = {**config, **{k: v for k, v in own.items() if v}, **given}
    if "Entrypoint" in given and "Cmd" not in given:
        merged.pop("Cmd", None)
    kept = [pair for pair in config.get("Env") or () if pair.partition("=")[0] not in container.environment_dropped]
    pairs = (*kept, *(own["Env"] or ()), *given.get("Env", ()))
    merged["Env"] = list({pair.partition("=")[0]: pair for pair in pairs}.values())
    program = container.entrypoint if container.entrypoint is not None else config.get("Entrypoint") or ()
    inherited = () if container.entrypoint is not None else config.get("Cmd") or ()
    words = [*program, *(container.command if container.command is not None else inherited)]
    document |= {
        "config": merged,
        "created": now,
        "author": author,
        "rootfs": {"type": "layers", "diff_ids": [*document["rootfs"]["diff_ids"], reply["diff_id"]]},
        "history": [
            *document.get("history", ()),
            {"created": now, "created_by": " ".join(words), "comment": comment, **({"author": author} if author else {})},
        ],
    }
    layers = [*store.manifest(base.digest).layers, types.Descriptor(types.OCI_LAYER, str(reply["digest"]), size)]
    return store.image(_commit(store, json.dumps(document).encode(), layers))


async def save(store: ImageStore, names: Sequence[str], *, of: str = "") -> AsyncIterator[bytes]:
    """A tar that both `docker load` and OCI tools read: an OCI layout with Docker's manifest.json beside it. It has the images
    called *names*, or the image *of* under these names."""
    entries, docker = [], []
    blobs: dict[str, None] = {}
    for name in names:
        image = store.find(of or name)
        manifest = store.manifest(image.digest)
        size = store.blob(image.digest).stat().st_size
        named = not name.startswith("sha256:")
        tags = [parse(name).familiar] if named and ":" in parse(name).familiar else None
        annotations = (
            {"io.containerd.image.name": parse(name).name, "org.opencontainers.image.ref.name": parse(name).tag}
            if named
            else {}
        )
        main = types.Descriptor(manifest.media_type, image.digest, size, annotations=annotations)
        if index := store.attached.get(image.digest):
            main = types.Descriptor(types.OCI_INDEX, index, store.blob(index).stat().st_size, annotations=annotations)
        entries.append(main)
        used = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        docker.append(
            {
                "Config": f"blobs/sha256/{image.id[7:]}",
                "RepoTags": tags,
                "Layers": [f"blobs/sha256/{d[7:]}" for d in used[1:]],
            }
        )
        blobs |= dict.fromkeys([*used, image.digest, *sorted(store.attached.digests(image.digest))])
    documents = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": msgspec.json.encode(types.ImageIndex(tuple(entries))),
        "manifest.json": json.dumps(docker).encode(),
    }
    for name, data in documents.items():
        yield _header(name, len(data)) + data + b"\0" * (-len(data) % 512)
    for digest in blobs:
        path = store.blob(digest)
        size = path.stat().st_size
        yield _header(f"blobs/sha256/{digest[7:]}", size)
        with path.open("rb") as file:
            async for chunk in _stream(file):
                yield chunk
        yield b"\0" * (-size % 512)
    yield b"\0" * 1024


def _header(name: str, size: int) -> bytes:
    import tarfile

    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
