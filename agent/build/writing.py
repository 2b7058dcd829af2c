"""A state becomes an image of the store: its layers' archives, its configuration in Docker's form, a manifest, names.

The same build gives the same image: an image's time is that of the first build that came to it. Source: OCI Image
Specification, manifest.md, config.md; Docker Image Specification v1.2; reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import asyncio
import re

import msgspec
from msgspec import UNSET

from agent.build import config
from agent.build.build_options import BuildOptions
from agent.build.builder import Builder
from agent.build.cache import key_of
from agent.build.layers import kinds
from agent.build.remote_cache import INLINE, inline
from agent.build.states import State
from agent.contract.times import timestamp
from agent.errors import BadRequestError
from agent.images import types
from agent.images.reference import parse
from agent.images.store import Image


async def image(builder: Builder, state: State, options: BuildOptions, *, named: bool) -> Image:
    """*named*: it gets the names that *options* have. Else it is held until the build has ended. Raises AgentError, OSError."""
    store, layers = builder.engine.images, builder.layers
    await asyncio.gather(*(layers.pack(layer) for layer in state.layers))
    document = state.document
    if options.labels:
        labels = dict(sorted(options.labels.items()))
        document = config.put(document, "Labels", {**(document["config"].get("Labels") or {}), **labels})
        by = "LABEL " + " ".join(f"{k}={v}" for k, v in labels.items())
        document = config.recorded(document, by, created="", empty_layer=True)
    epoch = options.epoch
    document = {**document, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in state.layers]}}
    document["history"] = _whole_history(document["history"] or [], len(state.layers))
    recipe = key_of(
        "image", {**document, "created": "", "history": [{**h, "created": ""} for h in document["history"]]}, epoch or 0
    )
    entry, _ = await builder.result(recipe, "image", _nothing, cached=not options.no_cache)
    when = timestamp(entry.created if epoch is None else epoch)
    document |= {"created": when, "history": [_dated(step, when, epoch) for step in document["history"]]}
    if any(cache.kind == "inline" for cache in options.cache_to):
        document[INLINE] = inline(state.layers)
    raw = msgspec.json.encode(document)
    if len(raw) > store.limits.config_bytes:
        raise BadRequestError(
            f"the image's configuration has more than {store.limits.config_bytes} bytes (limits.config_bytes)"
        )
    msgspec.json.decode(raw, type=types.Config)  # what the store could not read is not written
    blob = types.Descriptor("application/vnd.oci.image.config.v1+json", store.put_blob(raw), len(raw))
    manifest = types.ImageManifest(
        blob, kinds([layer.blob for layer in state.layers]), annotations=dict(sorted(options.annotations.items())) or UNSET
    )
    digest = store.put_blob(msgspec.json.encode(manifest))
    builder.transient |= {blob.digest[7:27], digest[7:27]}
    for tag in options.tags if named else ():
        store.tag(parse(tag), digest)
    if named and not options.tags:
        store.keep_untagged(digest)
    return store.image(digest)


async def _nothing() -> str:
    return ""


def _dated(step: config.Document, when: str, epoch: int | None) -> config.Document:
    """A step of this build with its time; those of the base have theirs."""
    created = step.get("created")
    if created == "":
        return {**step, "created": when}
    if isinstance(created, str) and re.fullmatch(r"[0-9]+\.[0-9]+", created):
        return {**step, "created": when if epoch is not None else timestamp(float(created))}
    return step


def _whole_history(history: list[config.Document], layers: int) -> list[config.Document]:
    """A base without a history, or with a part of one, has a step for each of its layers nevertheless."""
    missing = layers - sum(1 for step in history if not step.get("empty_layer"))
    return [{"created_by": ""} for _ in range(missing)] + history if missing > 0 else history
