"""Results of steps that lie elsewhere: in a registry, in a folder of the client's, in an image's own configuration.

A document lists steps by their keys, each with its layer, whose archive is a blob beside it. In a registry it is the
configuration of a manifest, in a folder that of an OCI layout's. What is found comes to the node as soon as a step of the same
key is reached, and is an entry of its cache from then on. Source: OCI Image Specification 1.1, manifest.md, image-layout.md;
docs.docker.com, "Cache storage backends" (names of options).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from agent import files
from agent.build.build_context import BuildContext
from agent.build.cache import Entry
from agent.build.cache_option import HERE, CacheOption
from agent.build.layers import Layer
from agent.build.states import State
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, ImageError
from agent.images import documents, platforms, types
from agent.images.credentials import Credentials
from agent.images.pull import choose
from agent.images.reference import parse
from agent.images.registry import Registry
from agent.images.store import Image, ImageStore
from agent.trees.tree import Tree

log = logging.getLogger(__name__)
CONFIG = "application/vnd.pystack.build-cache.v1+json"
INLINE = "pystack.build-cache.v1"
"""The key of an image's configuration that has the document."""
SENT = "sent:"
LARGEST = 64 << 20
"""Bytes of a document: some 100,000 steps."""
Fetch = Callable[[str, int], AsyncIterator[bytes]]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A step: *identity* as in Entry, *digest* and *size* of its layer's archive, "" where it changed nothing."""

    key: str
    identity: str
    note: str = ""
    created: float = 0.0
    digest: str = ""
    size: int = 0


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A cache."""

    records: tuple[Record, ...] = ()


def record(entry: Entry) -> Record:
    """Of an entry whose layer is packed."""
    return Record(
        key=entry.key,
        identity=entry.identity,
        note=entry.note,
        created=entry.created,
        digest=entry.digest if entry.layer else "",
        size=entry.size,
    )


def inline(layers: Iterable[Layer]) -> dict[str, object]:
    """The document of the steps that *layers* come from, for an image's configuration."""
    found = Document(records=tuple(record(layer.entry) for layer in layers if layer.entry))
    made: dict[str, object] = msgspec.to_builtins(found)
    return made


class Sources:
    """The images of this node that the classic builder takes steps from, and from nothing else, where any are named."""

    def __init__(self, store: ImageStore, options: Sequence[CacheOption]) -> None:
        self._names = [one.attributes["ref"] for one in options if one.kind == HERE]
        self._images: list[Image] = []
        for name in self._names:
            with contextlib.suppress(ImageError):
                self._images.append(store.find(name))

    def have(self, state: State) -> bool:
        """Whether one of them was built by way of *state*; true where none is named."""
        layers = tuple(layer.diff_id for layer in state.layers)
        steps = [step.get("created_by", "") for step in state.document.get("history") or ()]
        return not self._names or any(
            image.layers[: len(layers)] == layers
            and [step.created_by or "" for step in (image.config.history or ())[: len(steps)]] == steps
            for image in self._images
        )


class Imports:
    """The caches that a build may take steps from; they are looked at when the first step is not known here."""

    def __init__(self, job: BuildContext) -> None:
        self._job = job
        self._store: ImageStore = job.engine.images
        self._opening: asyncio.Task[None] | None = None
        self._found: dict[str, tuple[Record, Fetch]] = {}

    async def find(self, key: str) -> Entry | None:
        """The result of the step *key*, its layer in the store; None if no cache has it."""
        if not self._job.options.cache_from:
            return None
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)
        found = self._found.get(key)
        if found is None:
            return None
        try:
            return await self._brought(*found)
        except (AgentError, OSError) as error:
            log.warning("a layer of a build cache cannot be fetched: %s", error)
            del self._found[key]
            return None

    async def close(self) -> None:
        """Stop looking."""
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    async def _open(self) -> None:
        for one in self._job.options.cache_from:
            try:
                with self._job.report.work(f"importing cache manifest from {one.attributes.get('ref', one.kind)}"):
                    document, fetch = await self._read(one)
            except (AgentError, OSError, ValueError) as error:
                self._job.report.warn(f"cache_from: {quoted(str(error))}")
                continue
            for each in document.records:
                self._found.setdefault(each.key, (each, fetch))

    async def _read(self, one: CacheOption) -> tuple[Document, Fetch]:
        if one.kind == "local":
            source = one.attributes.get("src", "")
            if not source.startswith(SENT):
                raise BadRequestError("a local cache lies at the client, and this one sends none")
            return _layout(self._job.inputs.sent(source.removeprefix(SENT)).root, self._store)
        if one.kind == HERE:
            return self._here(one.attributes["ref"])
        reference = parse(one.attributes.get("ref", ""))
        credentials = await self._job.inputs.client.credentials(reference.host)
        settings = self._job.engine.settings
        what = f"the cache {reference.familiar}"
        async with Registry(reference, settings, credentials) as registry:
            data, _, kind = await registry.manifest(reference.target)
            if kind in types.INDEXES:
                data, _, kind = await registry.manifest(
                    choose(documents.index(data, what, settings.limits), platforms.own()).digest
                )
            manifest = documents.read(data, types.ImageManifest, what, settings.limits.manifest_bytes)
            if manifest.config.size > LARGEST:
                raise ImageError(f"{what} has more than the {LARGEST} bytes that are allowed")
            raw = b"".join([c async for c in registry.blob(manifest.config.digest, manifest.config.size)])

        async def fetch(digest: str, size: int) -> AsyncIterator[bytes]:
            async with Registry(reference, settings, credentials) as registry:
                async for chunk in registry.blob(digest, size):
                    yield chunk

        return read(raw, manifest.config.media_type, what, settings.limits.config_bytes), fetch

    def _here(self, name: str) -> tuple[Document, Fetch]:
        """Of an image that the node has; nothing where it has not."""

        async def fetch(digest: str, size: int) -> AsyncIterator[bytes]:
            del size
            async for chunk in _read(self._store.blob(digest)):
                yield chunk

        try:
            image = self._store.find(name)
            raw = self._store.blob(image.id).read_bytes()
            return read(raw, types.OCI_CONFIG, name, self._store.limits.config_bytes), fetch
        except ImageError:
            return Document(), fetch

    async def _brought(self, found: Record, fetch: Fetch) -> Entry:
        now, layer = time.time(), ""
        if found.digest:
            self._store.blob(found.digest)  # raises ImageError if it is not a digest
            layer = found.digest[7:27]
            self._job.builder.transient.add(layer)
            with self._job.report.work(f"[cache] {quoted(found.note)}"):
                if not (self._store.has_layer(found.digest) and self._store.has_blob(found.digest)):
                    await self._store.unpack(fetch(found.digest, found.size), digest=found.digest, diff_id=found.digest)
        disk = await asyncio.to_thread(files.used, self._store.layers / layer) if layer else 0
        return Entry(
            key=found.key,
            note=found.note,
            layer=layer,
            identity=found.identity,
            created=found.created,
            used=now,
            diff_id=found.digest,
            digest=found.digest,
            size=found.size,
            disk=disk,
        )


def read(raw: bytes, kind: str, what: str, config_bytes: int) -> Document:
    """Of a cache's configuration, or of an image's, of the media type *kind*. Raises ImageError."""
    if kind == CONFIG:
        return documents.read(raw, Document, what, LARGEST)
    found = documents.read(raw, dict[str, msgspec.Raw], what, config_bytes)
    if INLINE not in found:
        raise ImageError(f"{what} is an image without steps: build it with cache_to: [type=inline]")
    return documents.read(bytes(found[INLINE]), Document, what, config_bytes)


def _layout(root: Path, store: ImageStore) -> tuple[Document, Fetch]:
    """Of the OCI layout in the folder *root*. Raises ImageError, OSError."""
    limits = store.limits
    index = documents.index(_bytes(root, "index.json", limits.manifest_bytes), "index.json", limits)

    def path_of(digest: str) -> str:
        return f"blobs/sha256/{store.blob(digest).name}"

    for entry in index.manifests:
        raw = _bytes(root, path_of(entry.digest), limits.manifest_bytes)
        manifest = documents.read(raw, types.ImageManifest, "the cache's manifest", limits.manifest_bytes)
        if manifest.config.media_type == CONFIG:
            raw = _bytes(root, path_of(manifest.config.digest), LARGEST)

            async def fetch(digest: str, size: int) -> AsyncIterator[bytes]:
                del size
                with Tree.at(root) as tree, os.fdopen(tree.open_file(path_of(digest)), "rb") as file:
                    while data := await asyncio.to_thread(file.read, 1 << 20):
                        yield data

            return documents.read(raw, Document, "the cache", LARGEST), fetch
    raise ImageError("the folder's index.json names no cache of steps")


def _bytes(root: Path, path: str, most: int) -> bytes:
    with Tree.at(root) as tree:
        return tree.read(path, most)


async def packed(built: Sequence[tuple[BuildContext, State]], *, whole: bool) -> Document:
    """What was *built* leaves to the next: the steps of its images' layers, or all that it took or made. Raises AgentError,
    OSError."""
    entries: dict[str, Entry] = {}
    for job, state in built:
        entries |= job.used if whole else {layer.entry.key: layer.entry for layer in state.layers if layer.entry}
        held = [Layer(entry=entry) for entry in entries.values() if entry.layer]
        await asyncio.gather(*(job.builder.layers.pack(layer) for layer in held))
    return Document(records=tuple(map(record, entries.values())))


def manifest_of(document: Document, store: ImageStore) -> tuple[bytes, types.ImageManifest]:
    """The manifest of a cache, whose configuration is in the store then. Raises OSError."""
    raw = msgspec.json.encode(document)
    config = types.Descriptor(CONFIG, store.put_blob(raw), len(raw))
    layers = {r.digest: types.Descriptor(types.OCI_LAYER, r.digest, r.size) for r in document.records if r.digest}
    manifest = types.ImageManifest(config, tuple(layers.values()))
    return msgspec.json.encode(manifest), manifest


async def push(job: BuildContext, document: Document, name: str, credentials: Credentials | None) -> None:
    """Send a cache to its registry. Raises ImageError, OSError."""
    store, reference = job.engine.images, parse(name)
    data, manifest = manifest_of(document, store)
    async with Registry(reference, job.engine.settings, credentials) as registry:
        for blob in (*manifest.layers, manifest.config):
            if not await registry.has_blob(blob.digest):
                await registry.upload(blob.digest, _read(store.blob(blob.digest)), blob.size)
        await registry.put_manifest(reference.tag, data, manifest.media_type)


async def archive(document: Document, store: ImageStore) -> AsyncIterator[bytes]:
    """A tar of the OCI layout that holds a cache."""
    data, manifest = manifest_of(document, store)
    entry = types.Descriptor(manifest.media_type, store.put_blob(data), len(data))
    for name, text in (
        ("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()),
        ("index.json", msgspec.json.encode(types.ImageIndex((entry,)))),
    ):
        yield _member(name, len(text)) + text + bytes(-len(text) % tarfile.BLOCKSIZE)
    for blob in (entry, manifest.config, *manifest.layers):
        yield _member(f"blobs/sha256/{blob.digest[7:]}", blob.size)
        async for chunk in _read(store.blob(blob.digest)):
            yield chunk
        yield bytes(-blob.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 18):
            yield data
