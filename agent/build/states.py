"""Where a stage is between two steps: its layers, its configuration, its arguments. None of it changes; steps give another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agent.build import config
from agent.build.cache import key_of
from agent.build.layers import Layer


class State(msgspec.Struct, frozen=True, kw_only=True):
    """*key* identifies the files, *document* is the configuration, *arguments* has the values of ARGs. *trail* identifies what
    led to both: the base and the steps. *shown* is the name in messages of a state that is an image."""

    key: str
    layers: tuple[Layer, ...]
    document: config.Document
    arguments: dict[str, str] = {}
    trail: str = ""
    shown: str = ""
    has_command: bool = False
    """Whether its stage has said CMD: another ENTRYPOINT takes away one that came from below."""

    def changed(self, **fields: Any) -> State:
        """A copy with other *fields*; it is not an image."""
        return msgspec.structs.replace(self, shown="", **fields)

    def with_layer(self, layer: Layer, key: str) -> State:
        """The state with *layer* on top, and the new *key*."""
        return self.changed(layers=(*self.layers, layer), key=key)

    def recorded(self, by: str, layer: Layer | None = None, values: Mapping[str, str] = {}) -> State:
        """The state with *by* as the last entry of its history, whose time is set when the image is written. *values*: those
        that *by* alone does not say."""
        # the document itself may have thousands of entries, and is asked for its identity at each step
        return self._with_history(by, layer).changed(trail=key_of(self.trail, by, dict(values)))

    def _with_history(self, by: str, layer: Layer | None) -> State:
        document = self.document
        if layer is None:
            return self.changed(document=config.recorded(document, by, created="", empty_layer=True))
        assert layer.entry
        return self.changed(document=config.recorded(document, by, created=str(layer.entry.created), empty_layer=False))

    @property
    def short(self) -> str:
        """Twelve digits, like the beginning of an image's ID."""
        return self.shown or key_of(self.key, self.trail)[:12]
