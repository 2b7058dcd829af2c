"""Where a stage is between two steps: its layers, its configuration, its arguments. None of it changes; steps give another."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.build import config
from agent.build.cache import key_of
from agent.build.layers import Layer


class State(msgspec.Struct, frozen=True, kw_only=True):
    """*key* is what the files are, in a word; *document* the configuration; *arguments* values of ARGs. *shown* is what the
    state is called in messages, where it is an image."""

    key: str
    layers: tuple[Layer, ...]
    document: config.Document
    arguments: dict[str, str] = {}
    shown: str = ""

    def changed(self, **fields: Any) -> State:
        """A copy with other *fields*; it is not the image any more that it was."""
        return msgspec.structs.replace(self, shown="", **fields)

    def with_layer(self, layer: Layer, key: str) -> State:
        """A copy with *layer* on top; *key* is what its files are now."""
        return self.changed(layers=(*self.layers, layer), key=key)

    def recorded(self, by: str, layer: Layer | None = None) -> State:
        """With *by* as the last of what made it; when is said in the end, by whoever writes the image."""
        document = self.document
        if layer is None:
            return self.changed(document=config.recorded(document, by, created="", empty_layer=True))
        assert layer.entry
        return self.changed(document=config.recorded(document, by, created=str(layer.entry.created), empty_layer=False))

    @property
    def short(self) -> str:
        """Twelve digits, as an image's identity begins."""
        return self.shown or key_of(self.key, self.document)[:12]
