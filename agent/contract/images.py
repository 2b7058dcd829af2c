"""An image on its way between nodes."""

from __future__ import annotations

from agent.contract.wire import WireStruct


class BundledLayer(WireStruct, frozen=True, kw_only=True):
    """A layer in a bundle: digest of the blob and of the unpacked tar, *size* of the blob in bytes."""

    digest: str
    diff_id: str
    size: int


class ImageBundle(WireStruct, frozen=True, kw_only=True):
    """An image on its way between nodes: the digests of its manifest, config and layers, and its names."""

    digest: str
    config: str
    layers: tuple[BundledLayer, ...] = ()
    names: tuple[str, ...] = ()
