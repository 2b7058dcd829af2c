"""Caches of steps as clients name them. Source: docs.docker.com, "Cache storage backends"."""

from __future__ import annotations

import msgspec

from agent.build.options_text import TRUE, words
from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.images.reference import parse

KINDS = ("registry", "local", "inline")
HERE = "image"
"""A cache inside of an image that this node has: what the classic builder means."""


class CacheOption(msgspec.Struct, frozen=True, kw_only=True):
    """A cache as clients name it: *kind* is registry (`ref`), local (`src`, `dest`) or inline; `mode` is min or max."""

    kind: str
    attributes: dict[str, str] = {}

    @property
    def whole(self) -> bool:
        """Whether steps of other stages than the image's own are kept, too."""
        return self.attributes.get("mode", "min") == "max"

    @property
    def lenient(self) -> bool:
        """Whether a build is good although its cache cannot be kept."""
        return self.attributes.get("ignore-error", "").lower() in TRUE


def option(text: str, plain: str = "registry") -> CacheOption:
    """`type=KIND,NAME=VALUE…`, or the name of an image, which is of the kind *plain*. Raises BadRequestError."""
    if "=" not in text:
        return checked(CacheOption(kind=plain, attributes={"ref": text}))
    pairs = {name.strip().lower(): value.strip() for name, _, value in (word.partition("=") for word in words(text))}
    return checked(CacheOption(kind=pairs.pop("type", "registry"), attributes=pairs))


def checked(found: CacheOption) -> CacheOption:
    """Raises BadRequestError for a cache that is none."""
    if found.kind not in (*KINDS, HERE):
        raise BadRequestError(f"cache type {quoted(found.kind)!r} is not known: {', '.join(KINDS)} are")
    if found.kind in ("registry", HERE):
        if not found.attributes.get("ref"):
            raise BadRequestError("cache type registry: ref=NAME says where it lies")
        parse(found.attributes["ref"])
    if found.attributes.get("mode", "min") not in ("min", "max"):
        raise BadRequestError(f"cache mode {quoted(found.attributes['mode'])!r}: min or max")
    return found
