"""The sizes of unpacked layers; measured once, since a layer never changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from agent.files import used
from agent.images.store import Image, ImageStore, layer_directory


class Sizes:
    """Bytes by layer of one store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._known: dict[str, int] = {}

    async def learn(self, images: Iterable[Image]) -> None:
        """Measure the layers of *images* that were not yet, beside the loop."""
        unknown = {diff_id for image in images for diff_id in image.layers} - self._known.keys()
        if unknown:
            self._known |= await asyncio.to_thread(
                lambda: {d: used(layer_directory(self._store.layers, d)) for d in unknown if self._store.has_layer(d)}
            )

    def layer(self, diff_id: str) -> int:
        """The size of a layer in bytes; 0 if it is not known."""
        return self._known.get(diff_id, 0)

    def image(self, image: Image) -> int:
        """The sum of its layers; 0 for those that were not measured."""
        return sum(map(self.layer, image.layers))
