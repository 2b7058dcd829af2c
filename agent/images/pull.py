"""Pull and push: a reference becomes a complete image of the store, and back."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import msgspec

from agent.errors import ImageError
from agent.images import types
from agent.images.auth import Credentials
from agent.images.reference import Reference
from agent.images.registry import Registry
from agent.images.store import Image, ImageStore
from agent.settings import Settings

T = TypeVar("T")
Progress = Callable[[dict[str, object]], None]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """This machine's name in Go's list, which images use."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def choose(index: types.Index, wanted: str) -> types.Descriptor:
    """The entry for linux on *wanted*. Raises ImageError that lists what there is."""
    for entry in index.manifests:
        if entry.platform and entry.platform.os == "linux" and entry.platform.architecture == wanted:
            return entry
    plain = [e for e in index.manifests if e.platform is None and e.media_type in types.MANIFESTS]
    if len(plain) == 1:
        return plain[0]
    there = ", ".join(f"{e.platform.os}/{e.platform.architecture}" for e in index.manifests if e.platform)
    raise ImageError(f"the image has no version for linux/{wanted}, only for {there or 'nothing'}")


async def pull(
    store: ImageStore, reference: Reference, settings: Settings, progress: Progress, credentials: Credentials | None = None,
) -> Image:
    """Fetch *reference* whole. Layers arrive side by side; what is here already is not fetched again."""
    async with Registry(reference, settings, credentials) as registry:
        data, digest, kind = await registry.manifest(reference.target)
        if kind in types.INDEXES:
            index = _decode(data, types.Index, "index")
            entry = choose(index, architecture())
            data, digest, kind = await registry.manifest(entry.digest)
            if kind not in types.MANIFESTS:
                raise ImageError("the index names another index: refused")
        manifest = _decode(data, types.Manifest, "manifest")
        if manifest.config.size > 8 << 20:
            raise ImageError(f"the image's config claims {manifest.config.size} bytes: refused")
        if not store.has_blob(manifest.config.digest):
            raw = b"".join([c async for c in registry.blob(manifest.config.digest, manifest.config.size)])
            store.put_blob(raw, manifest.config.digest)
        raw = store.blob(manifest.config.digest).read_bytes()
        config = _decode(raw, types.Config, "config")
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise ImageError(
                f"the manifest lists {len(manifest.layers)} layers, the config {len(config.rootfs.diff_ids)}"
            )
        limit = asyncio.Semaphore(4)

        async def fetch(layer: types.Descriptor, diff_id: str) -> None:
            short = layer.digest[7:19]
            if store.has_layer(diff_id) and store.has_blob(layer.digest):
                progress({"id": short, "status": "Already exists"})
                return
            done = 0

            def step(count: int) -> None:
                nonlocal done
                done += count
                detail = {"current": done, "total": layer.size}
                progress({"id": short, "status": "Downloading", "progressDetail": detail})

            async with limit:
                source = registry.blob(layer.digest, layer.size)
                await store.unpack(source, digest=layer.digest, diff_id=diff_id, progress=step)
            progress({"id": short, "status": "Pull complete"})

        try:
            async with asyncio.TaskGroup() as group:
                for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
                    group.create_task(fetch(layer, diff_id))
        except* ImageError as errors:
            raise errors.exceptions[0] from None
        store.put_blob(data, digest)
        if reference.tag:
            store.tag(reference, digest)
        else:
            store.keep_untagged(digest)
        store.mark_pulled(reference)
        progress({"status": f"Digest: {digest}"})
        return store.image(digest)


async def push(
    store: ImageStore, image: Image, reference: Reference, settings: Settings, progress: Progress,
    credentials: Credentials | None = None,
) -> str:
    """Send *image* to its registry under *reference*; returns the manifest's digest."""
    manifest = store.manifest(image.digest)
    async with Registry(reference, settings, credentials) as registry:
        for blob in (*manifest.layers, manifest.config):
            short = blob.digest[7:19]
            if await registry.has_blob(blob.digest):
                progress({"id": short, "status": "Layer already exists"})
                continue
            await registry.upload(blob.digest, _read(store, blob.digest), store.blob(blob.digest).stat().st_size)
            progress({"id": short, "status": "Pushed"})
        data = store.blob(image.digest).read_bytes()
        await registry.put_manifest(reference.tag, data, manifest.media_type)
    progress({"status": f"{reference.tag}: digest: {image.digest} size: {len(data)}"})
    return image.digest


async def _read(store: ImageStore, digest: str) -> AsyncIterator[bytes]:
    with store.blob(digest).open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ImageError(f"the image's {what} is malformed: {error}") from error
