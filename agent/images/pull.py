"""Pull and push: a reference becomes a complete image of the store, and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from agent.contract.printable import quoted
from agent.errors import AgentError, ImageError
from agent.images import documents, platforms, types
from agent.images.credentials import Credentials
from agent.images.reference import DIGEST, Reference
from agent.images.registry import PAUSE_S, Registry
from agent.images.store import Image, ImageStore
from agent.settings import Settings

Progress = Callable[[dict[str, object]], None]
STEPS = 200
"""How often the download of a layer is reported, at most."""


def choose(index: types.ImageIndex, wanted: types.Platform, name: str = "") -> types.Descriptor:
    """The entry for *wanted* in the index of image *name*. Raises ImageError that lists the platforms of the index."""
    fits = [
        e
        for e in index.manifests
        if e.platform and (e.platform.os, e.platform.architecture) == (wanted.os, wanted.architecture)
    ]
    ranked = sorted(fits, key=lambda entry: _rank(entry, wanted))
    if ranked:
        return ranked[0]
    plain = [e for e in index.manifests if e.platform is None and e.media_type in types.MANIFESTS]
    if len(plain) == 1:
        return plain[0]
    there = dict.fromkeys(quoted(platforms.text_of(e.platform)) for e in index.manifests if e.platform)
    some = ", ".join([*there][:10]) + (", …" if len(there) > 10 else "")
    raise ImageError(
        f"the image {name}".rstrip() + f" has no version for {platforms.text_of(wanted)}, only for {some or 'nothing'}"
    )


def _rank(entry: types.Descriptor, wanted: types.Platform) -> tuple[bool, int]:
    """How well a version fits, the least fits best: a machine runs programs of the variants before its own."""
    assert entry.platform
    silent = platforms.SILENT.get(wanted.architecture, "")
    variants = [one or silent for one in (entry.platform.variant, wanted.variant)]
    have, most = (int(v[1:]) if v[1:].isdecimal() else 0 for v in variants)
    return have > most, abs(most - have)


async def pull(
    store: ImageStore,
    reference: Reference,
    settings: Settings,
    progress: Progress,
    credentials: Credentials | None = None,
    *,
    pause_s: float = PAUSE_S,
    wanted: types.Platform | None = None,
) -> Image:
    """Fetch *reference* whole, within `settings.limits`. Layers are fetched concurrently, and only those that are missing.
    *pause_s* is as in Registry. An image for another platform *wanted* gets no name: on this node that is this machine's.

    Raises ImageError, OSError (a full disk)."""
    name, limits = reference.familiar, settings.limits
    async with Registry(reference, settings, credentials, pause_s=pause_s) as registry:
        data, digest = await _manifest(registry, reference, settings, wanted or platforms.own())
        manifest = documents.manifest(data, f"the manifest of image {name}", limits)
        mark = manifest.config.digest
        if not store.has_blob(mark):
            raw = b"".join([c async for c in registry.blob(mark, manifest.config.size)])
            store.put_blob(raw, mark)
        raw = store.blob(mark).read_bytes()
        config = documents.config(raw, f"the config of image {name}", limits, layers=len(manifest.layers))
        if wanted and config.architecture not in ("", wanted.architecture):
            raise ImageError(f"the image {name} is for {config.architecture}, not for {platforms.text_of(wanted)}")
        limit = asyncio.Semaphore(4)

        async def fetch(layer: types.Descriptor, diff_id: str) -> None:
            if store.has_layer(diff_id) and store.has_blob(layer.digest):
                progress({"id": layer.digest[7:19], "status": "Already exists"})
                return
            await limit.acquire()
            with contextlib.ExitStack() as slot:
                slot.callback(limit.release)
                source = registry.blob(layer.digest, layer.size)
                steps = _download_steps(layer, progress)
                # while the disk is waited for, the next layer comes
                await store.unpack(source, digest=layer.digest, diff_id=diff_id, progress=steps, unpacked=slot.close)
            progress({"id": layer.digest[7:19], "status": "Pull complete"})

        try:
            async with asyncio.TaskGroup() as group:
                for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
                    group.create_task(fetch(layer, diff_id))
        except* (AgentError, OSError) as errors:
            raise first(errors) from None
        store.put_blob(data, digest)
        if wanted:
            return store.image(digest)
        if reference.tag:
            store.tag(reference, digest)
        else:
            store.keep_untagged(digest)
        store.mark_pulled(reference)
        progress({"status": f"Digest: {digest}"})
        return store.image(digest)


async def _manifest(registry: Registry, reference: Reference, settings: Settings, wanted: types.Platform) -> tuple[bytes, str]:
    """The image manifest of *reference* for the platform *wanted*, and its digest. Raises ImageError."""
    name = reference.familiar
    data, digest, kind = await registry.manifest(reference.target)
    if kind in types.INDEXES:
        entry = choose(documents.index(data, f"the index of image {name}", settings.limits), wanted, name)
        if not DIGEST.match(entry.digest):
            raise ImageError(f"the index of image {name} names a manifest by {quoted(entry.digest)}: sha256 alone is known")
        data, digest, kind = await registry.manifest(entry.digest)
        if kind not in types.MANIFESTS:
            raise ImageError(f"the index of image {name} names another index: refused")
    return data, digest


def _download_steps(layer: types.Descriptor, progress: Progress) -> Callable[[int], None]:
    """A function that takes counts of bytes as they arrive, and reports the download of *layer* at most STEPS times."""
    done = reported = 0

    def step(count: int) -> None:
        nonlocal done, reported
        done += count
        if done < min(reported + layer.size // STEPS, layer.size):
            return  # a registry that sends byte by byte fills no list of steps
        reported = done
        detail = {"current": done, "total": layer.size}
        progress({"id": layer.digest[7:19], "status": "Downloading", "progressDetail": detail})

    return step


async def push(
    store: ImageStore,
    image: Image,
    reference: Reference,
    settings: Settings,
    progress: Progress,
    credentials: Credentials | None = None,
) -> str:
    """Send *image* to its registry under *reference*; returns the manifest's digest."""
    manifest = store.manifest(image.digest)
    async with Registry(reference, settings, credentials) as registry:
        for layer in manifest.layers:
            progress({"id": layer.digest[7:19], "status": "Preparing"})
        for blob in (*manifest.layers, manifest.config):
            short = blob.digest[7:19]
            if await registry.has_blob(blob.digest):
                progress({"id": short, "status": "Layer already exists"})
                continue
            await registry.upload(blob.digest, _read(store, blob.digest), store.blob(blob.digest).stat().st_size)
            progress({"id": short, "status": "Pushed"})
        digest, kind = image.digest, manifest.media_type
        if index := store.attached.get(image.digest):
            await _push_attached(store, registry, image.digest, kind)
            digest, kind = index, types.OCI_INDEX
        data = store.blob(digest).read_bytes()
        await registry.put_manifest(reference.tag, data, kind)
    progress({"status": f"{reference.tag}: digest: {digest} size: {len(data)}"})
    return digest


async def push_layer(
    store: ImageStore, blob: types.Descriptor, reference: Reference, settings: Settings, credentials: Credentials | None = None
) -> None:
    """Send one layer of an image that follows later. Raises ImageError, OSError."""
    async with Registry(reference, settings, credentials) as registry:
        if not await registry.has_blob(blob.digest):
            await registry.upload(blob.digest, _read(store, blob.digest), blob.size)


async def _push_attached(store: ImageStore, registry: Registry, digest: str, kind: str) -> None:
    """Send the manifest of the image *digest*, and its attestations, which an index is about to name."""
    await registry.put_manifest(digest, store.blob(digest).read_bytes(), kind)
    for part in store.attached.parts(digest):
        if part.media_type in types.MANIFESTS:
            await registry.put_manifest(part.digest, store.blob(part.digest).read_bytes(), part.media_type)
        elif not await registry.has_blob(part.digest):
            await registry.upload(part.digest, _read(store, part.digest), part.size)


async def _read(store: ImageStore, digest: str) -> AsyncIterator[bytes]:
    with store.blob(digest).open("rb") as file:
        while chunk := file.read(1 << 16):  # small enough that each that is taken is progress
            yield chunk


def first(group: BaseExceptionGroup[AgentError | OSError]) -> AgentError | OSError:
    """Of several layers that failed, why the first did."""
    error = group.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error
