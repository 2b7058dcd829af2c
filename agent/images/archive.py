"""Images from and to files: docker-archive (`docker save`), OCI archives and layouts, and plain root file systems.

Members of an archive are read by name from the tar's table; nothing is extracted to the host's file system.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from agent.errors import BadRequestError, ImageError
from agent.images import types
from agent.images.pull import architecture, choose
from agent.images.reference import Reference, parse
from agent.images.store import Image, ImageStore, mountable
from agent.manifest import Container


class _Layout:
    """Members by path, of a tar file or a directory."""

    def __init__(self, path: Path) -> None:
        self._root = path if path.is_dir() else None
        self._tar: tarfile.TarFile | None = None
        if self._root is None:
            try:
                self._tar = tarfile.open(path)  # noqa: SIM115 - closed by close()
                self._members = {m.name.removeprefix("./"): m for m in self._tar.getmembers()}
            except (tarfile.TarError, EOFError, OSError) as error:
                raise BadRequestError(f"{path.name} is no image archive: {error}") from error

    def close(self) -> None:
        if self._tar:
            self._tar.close()

    def open(self, name: str) -> BinaryIO:
        if self._tar is None:
            assert self._root
            target = (self._root / name).resolve()
            if not target.is_relative_to(self._root.resolve()) or not target.is_file():
                raise ImageError(f"the image layout lacks {name}")
            return target.open("rb")
        member = self._members.get(name)
        # docker save writes shared layers as symbolic links to their first copy
        if member is not None and member.issym():
            parent = name.rsplit("/", 1)[0] if "/" in name else ""
            parts: list[str] = parent.split("/") if parent else []
            for part in member.linkname.split("/"):
                parts = parts[:-1] if part == ".." else [*parts, part]
            member = self._members.get("/".join(parts))
        file = self._tar.extractfile(member) if member is not None and member.isfile() else None
        if file is None:
            raise ImageError(f"the image archive lacks {name}")
        return file  # type: ignore[return-value]

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def has(self, name: str) -> bool:
        try:
            self.open(name).close()
        except ImageError:
            return False
        return True


async def _stream(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, 1 << 20):
        yield chunk


async def load(store: ImageStore, path: Path) -> list[str]:
    """Take every image of an archive or layout into the store; returns their familiar names (or digests)."""
    layout = _Layout(path)
    try:
        # `docker save` since 25 writes both forms: the OCI one is the exact one
        if layout.has("index.json"):
            return await _load_oci(store, layout)
        if layout.has("manifest.json"):
            return await _load_docker(store, layout)
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise BadRequestError(f"{path.name} is damaged: {error}") from error
    finally:
        layout.close()
    raise BadRequestError(f"{path.name} is no image archive: it has neither index.json (OCI) nor manifest.json (Docker)")


async def _load_oci(store: ImageStore, layout: _Layout) -> list[str]:
    index = msgspec.json.decode(layout.read("index.json"), type=types.Index)
    loaded = []
    for entry in index.manifests:
        name = entry.annotations.get("io.containerd.image.name") or entry.annotations.get(
            "org.opencontainers.image.ref.name", ""
        )
        digest = entry.digest
        data = layout.read(f"blobs/sha256/{digest[7:]}")
        if entry.media_type in types.INDEXES:
            digest = choose(msgspec.json.decode(data, type=types.Index), architecture()).digest
            data = layout.read(f"blobs/sha256/{digest[7:]}")
        manifest = msgspec.json.decode(data, type=types.Manifest)
        raw = layout.read(f"blobs/sha256/{manifest.config.digest[7:]}")
        store.put_blob(raw, manifest.config.digest)
        config = msgspec.json.decode(raw, type=types.Config)
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
            if not (store.has_layer(diff_id) and store.has_blob(layer.digest)):
                with layout.open(f"blobs/sha256/{layer.digest[7:]}") as file:
                    await store.unpack(_stream(file), digest=layer.digest, diff_id=diff_id)
        store.put_blob(data, digest)
        if name:
            # an annotation may be a bare tag, which names nothing
            reference = parse(name if ":" in name or "/" in name else f"loaded:{name}")
            store.tag(reference, digest)
            loaded.append(reference.familiar)
        else:
            store.keep_untagged(digest)
            loaded.append(digest)
    return loaded


async def _load_docker(store: ImageStore, layout: _Layout) -> list[str]:
    loaded = []
    for entry in json.loads(layout.read("manifest.json")):
        raw = layout.read(entry["Config"])
        config = msgspec.json.decode(raw, type=types.Config)
        layers = []
        for name, diff_id in zip(entry["Layers"], config.rootfs.diff_ids, strict=True):
            with layout.open(name) as file:
                reply = await store.unpack(_stream(file), digest="", diff_id=diff_id)
            digest = str(reply["digest"]) or diff_id
            layers.append(types.Descriptor(types.OCI_LAYER, digest, store.blob(digest).stat().st_size))
        digest = _commit(store, raw, layers)
        for name in entry.get("RepoTags") or ():
            store.tag(parse(name), digest)
            loaded.append(parse(name).familiar)
        if not entry.get("RepoTags"):
            store.keep_untagged(digest)
            loaded.append(digest)
    return loaded


def _commit(store: ImageStore, config: bytes, layers: Sequence[types.Descriptor]) -> str:
    """Write config and manifest; returns the manifest's digest."""
    descriptor = types.Descriptor(types.OCI_CONFIG, store.put_blob(config), len(config))
    return store.put_blob(msgspec.json.encode(types.Manifest(descriptor, tuple(layers))))


async def import_rootfs(
    store: ImageStore, source: AsyncIterator[bytes], reference: Reference, changes: types.RunConfig | None = None
) -> Image:
    """Make a one-layer image of a root file system's tar stream (plain, gzip or zstd)."""
    reply = await store.unpack(source, digest="", diff_id="")
    size = store.blob(str(reply["digest"])).stat().st_size
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "config": msgspec.to_builtins(changes or types.RunConfig()),
        "rootfs": {"type": "layers", "diff_ids": [reply["diff_id"]]},
        "history": [{"created_by": "pystack image import"}],
    }
    layer = types.Descriptor(types.OCI_LAYER, str(reply["digest"]), size)
    digest = _commit(store, json.dumps(config).encode(), [layer])
    store.tag(reference, digest)
    return store.image(digest)


async def commit(
    store: ImageStore, base: Image, container: Container, layer: AsyncIterator[bytes], changes: types.RunConfig | None, *,
    author: str = "", comment: str = "",
) -> Image:
    """An image of *base* and one more *layer*, run as *container* is where *changes* say nothing else. Raises ImageError where
    that is one layer too many."""
    mountable("of this commit", [*base.layers, "one more"])
    reply = await store.unpack(layer, digest="", diff_id="")
    size = store.blob(str(reply["digest"])).stat().st_size
    document = json.loads(store.blob(base.id).read_bytes())
    now = datetime.datetime.now(datetime.UTC).isoformat()
    config = document.get("config") or {}
    own: dict[str, Any] = {
        "Env": [f"{k}={v}" for k, v in container.environment], "User": container.user, "WorkingDir": container.working_dir,
        "Cmd": container.command, "Entrypoint": container.entrypoint,
    }
    given = {k: v for k, v in msgspec.to_builtins(changes or types.RunConfig()).items() if v}
    merged = {**config, **{k: v for k, v in own.items() if v}, **given}
    pairs = (*(config.get("Env") or ()), *(own["Env"] or ()), *given.get("Env", ()))
    merged["Env"] = list({pair.partition("=")[0]: pair for pair in pairs}.values())
    document |= {
        "config": merged, "created": now, "author": author,
        "rootfs": {"type": "layers", "diff_ids": [*document["rootfs"]["diff_ids"], reply["diff_id"]]},
        "history": [*document.get("history", ()), {"created": now, "created_by": "pystack commit", "comment": comment}],
    }
    layers = [*store.manifest(base.digest).layers, types.Descriptor(types.OCI_LAYER, str(reply["digest"]), size)]
    return store.image(_commit(store, json.dumps(document).encode(), layers))


async def save(store: ImageStore, names: Sequence[str]) -> AsyncIterator[bytes]:
    """A tar that both `docker load` and OCI tools read: an OCI layout with Docker's manifest.json beside it."""
    entries, docker = [], []
    blobs: dict[str, None] = {}
    for name in names:
        image = store.find(name)
        manifest = store.manifest(image.digest)
        size = store.blob(image.digest).stat().st_size
        tags = [parse(name).familiar] if not name.startswith("sha256:") and ":" in parse(name).familiar else []
        annotations = {"io.containerd.image.name": parse(name).name, "org.opencontainers.image.ref.name": name}
        entries.append(types.Descriptor(manifest.media_type, image.digest, size, annotations=annotations))
        used = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        docker.append(
            {
                "Config": f"blobs/sha256/{image.id[7:]}",
                "RepoTags": tags,
                "Layers": [f"blobs/sha256/{d[7:]}" for d in used[1:]],
            }
        )
        blobs |= dict.fromkeys([*used, image.digest])
    documents = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": msgspec.json.encode(types.Index(tuple(entries))),
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
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
