"""Layers while they are built: a writable folder becomes a layer of the store as it is, without being packed and unpacked.

Its archive, by whose digest an image names it, is made when an image needs it, beside the steps that follow. Source: OCI Image
Specification, layer.md; Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent import files, mounts
from agent.build.cache import Cache, Entry
from agent.contract.failpoints import failpoint
from agent.errors import AgentError, of_worker
from agent.images import types
from agent.images.store import ImageStore, layer_directory
from agent.trees import process


class Layer:
    """One layer of a state: an image's, or a step's, which has an *entry* of the cache."""

    def __init__(self, *, entry: Entry | None = None, diff_id: str = "", blob: types.Descriptor | None = None) -> None:
        self._entry, self._diff_id, self._blob = entry, diff_id, blob

    @property
    def entry(self) -> Entry | None:
        """The entry of the cache, None for a layer of an image."""
        return self._entry

    @property
    def diff_id(self) -> str:
        """The digest of its archive, uncompressed; "" while there is none."""
        return self._entry.diff_id if self._entry else self._diff_id

    @property
    def blob(self) -> types.Descriptor:
        """Its archive, once it exists."""
        if self._blob:
            return self._blob
        assert self._entry
        return types.Descriptor(types.OCI_LAYER, self._entry.digest, self._entry.size)

    def name(self) -> str:
        """Its folder in the store."""
        return self._entry.layer if self._entry else self._diff_id.removeprefix("sha256:")[:20]


class Layers:
    """The store's layers as builds see them."""

    def __init__(self, store: ImageStore, cache: Cache, held: set[str]) -> None:
        """What is in *held* no collection of the store's takes: names of folders, and beginnings of blobs' digests."""
        self.store, self.cache, self.held = store, cache, held
        self._packing: dict[str, asyncio.Task[None]] = {}

    def paths(self, layers: Sequence[Layer]) -> list[Path]:
        """Folders, bottom first; overlayfs takes none twice."""
        names = list(dict.fromkeys(layer.name() for layer in reversed(layers)))
        return [self.store.layers / name for name in reversed(names)]

    async def take(self, upper: Path, epoch: int | None) -> str:
        """The writable folder *upper*, which nobody writes to any more, becomes a layer; its name, "" if it is empty. No
        file of it is newer than *epoch*, where that is said. Raises AgentError."""
        with os.scandir(upper) as entries:
            if not any(entries):
                return ""
        if epoch is not None:
            reply = await process.asked("clamp", (str(upper), str(epoch)), stall_s=self.store.limits.stall_s)
            if "error" in reply:
                raise of_worker(reply)
        name = secrets.token_hex(10)
        self.held.add(name)
        failpoint("build.layer")
        upper.rename(self.store.layers / name)
        return name

    async def pack(self, layer: Layer) -> None:
        """Make the archive of *layer*, if there is none; callers at the same time share one. Raises AgentError, OSError."""
        entry = layer.entry
        if entry is None or (entry.digest and self.store.has_blob(entry.digest)):
            return
        task = self._packing.get(entry.identity)
        if task is None:
            task = asyncio.create_task(self._pack(entry))
            self._packing[entry.identity] = task
            task.add_done_callback(lambda done: (self._packing.pop(entry.identity, None), done.cancelled() or done.exception()))
        await asyncio.shield(task)

    async def _pack(self, entry: Entry) -> None:
        name = secrets.token_hex(10)
        self.held.add(name)
        temporary = self.store.blobs / f"{name}.tmp"
        try:
            with temporary.open("wb") as file:
                words = (str(self.store.layers / entry.layer), mounts.overlay_attribute("opaque"))
                reply = await process.written("packing", ("blob", *words), file.fileno(), stall_s=self.store.limits.stall_s)
            if "error" in reply:
                raise of_worker(reply, AgentError, "a layer cannot be packed: ")
            digest = str(reply["digest"])
            self.held.add(digest[7:27])
            failpoint("build.pack")
            temporary.rename(self.store.blob(digest))
        finally:
            temporary.unlink(missing_ok=True)
            self.held.discard(name)
        self._settle(entry, digest, int(reply["size"]))

    def _settle(self, entry: Entry, digest: str, size: int) -> None:
        """The layer is called after its archive from now on: images look for it there."""
        final = layer_directory(self.store.layers, digest)
        before = self.store.layers / entry.layer
        if before != final and not final.exists():
            before.rename(final)
        # where another step gave the same before, this one's folder goes with the next collection
        entry.layer, entry.diff_id, entry.digest, entry.size = final.name, digest, digest, size
        entry.used = time.time()
        self.cache.save(entry)


def image_layers(store: ImageStore, digest: str, diff_ids: Sequence[str]) -> list[Layer]:
    """Layers of the image with the manifest *digest*."""
    return [Layer(diff_id=diff_id, blob=blob) for diff_id, blob in zip(diff_ids, store.manifest(digest).layers, strict=True)]


def dress_like(upper: Path, lower: Path | None) -> None:
    """The root of a container has owner and mode of its image's."""
    if lower is not None:
        seen = os.stat(lower)
        os.chown(upper, seen.st_uid, seen.st_gid)
        upper.chmod(seen.st_mode & 0o7777)


def fresh(folder: Path) -> Path:
    """An empty *folder* for an overlay to write to, with `upper` and `work`."""
    files.remove_tree(folder)
    for part in ("upper", "work"):
        (folder / part).mkdir(parents=True, mode=0o755)
    return folder


def kinds(blobs: Sequence[types.Descriptor]) -> tuple[types.Descriptor, ...]:
    """The layers of an image in one family of media types, OCI's: an image of two families is none."""
    names = {
        "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{types.OCI_LAYER}+gzip",
        "application/vnd.docker.image.rootfs.diff.tar": types.OCI_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{types.OCI_LAYER}+zstd",
    }
    return tuple(msgspec.structs.replace(b, media_type=names.get(b.media_type, b.media_type)) for b in blobs)
