"""Parses documents of images from strangers: their size is bounded, their types are checked, errors are one sentence.

Pure. Results are valid: digests are well-formed, sizes not negative, and a manifest has no more layers than
are allowed. Source: OCI Image Specification 1.1, descriptor.md, manifest.md, config.md; Docker Image Specification v1.2
(manifest.json); CVE-2021-41190.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from agent.contract.printable import quoted
from agent.errors import ImageError
from agent.images import types
from agent.settings import ImageLimits

T = TypeVar("T")


class Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of the manifest.json of `docker save`: names of members of the archive."""

    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


def read(data: bytes, kind: type[T], what: str, limit: int) -> T:
    """*data* as a JSON document of type *kind*. Raises ImageError; its message calls it *what*."""
    if len(data) > limit:
        raise ImageError(f"{what} has more than the {limit} bytes that are allowed")
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise ImageError(f"{what} is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:  # the second: text that is not UTF-8
        raise ImageError(f"{what} is malformed: {quoted(str(error))}") from None


def kind_of(data: bytes, header: str, what: str, limit: int) -> str:
    """The media type of a manifest or index: its own, else the *header*'s, checked against its content.

    Raises ImageError, also for one that has both layers and manifests."""
    document = read(data, dict[str, msgspec.Raw], what, limit)
    if "layers" in document and "manifests" in document:
        raise ImageError(f"{what} has both layers and manifests: it is neither a manifest nor an index")
    media_type = document.get("mediaType")
    kind = read(bytes(media_type), str | None, f"the mediaType of {what}", limit) if media_type is not None else None  # type: ignore[arg-type]
    kind = kind or header.partition(";")[0].strip()
    if "manifests" in document and kind not in types.INDEXES:
        kind = types.OCI_INDEX
    if kind not in types.INDEXES + types.MANIFESTS:
        raise ImageError(f"{what} is of type {quoted(kind) or 'unknown'}, which pystack cannot read")
    return kind


def index(data: bytes, what: str, limits: ImageLimits) -> types.ImageIndex:
    """Raises ImageError."""
    return read(data, types.ImageIndex, what, limits.manifest_bytes)


def manifest(data: bytes, what: str, limits: ImageLimits) -> types.ImageManifest:
    """Raises ImageError."""
    found = read(data, types.ImageManifest, what, limits.manifest_bytes)
    if len(found.layers) > limits.layers:
        raise ImageError(f"{what} has {len(found.layers)} layers; {limits.layers} are allowed (limits.layers)")
    if found.config.size > limits.config_bytes:
        raise ImageError(
            f"{what} has a config of {found.config.size} bytes; {limits.config_bytes} are allowed (limits.config_bytes)"
        )
    for layer in found.layers:
        if layer.size > limits.bytes:
            raise ImageError(f"{what} has a layer of {layer.size} bytes; {limits.bytes} are allowed (limits.bytes)")
    return found


def config(data: bytes, what: str, limits: ImageLimits, *, layers: int) -> types.Config:
    """The config of an image whose manifest has so many *layers*. Raises ImageError."""
    found = read(data, types.Config, what, limits.config_bytes)
    if len(found.rootfs.diff_ids) != layers:
        raise ImageError(f"{what} names {len(found.rootfs.diff_ids)} layers, the manifest {layers}")
    return found


def saved(data: bytes, what: str, limits: ImageLimits) -> tuple[Saved, ...]:
    """The manifest.json of a `docker save` archive. Raises ImageError."""
    found = read(data, tuple[Saved, ...], what, limits.manifest_bytes)
    for entry in found:
        if len(entry.layers) > limits.layers:
            raise ImageError(f"{what} has an image of {len(entry.layers)} layers; {limits.layers} are allowed (limits.layers)")
    return found
