"""Copies an image from one node to another: only the layers that are missing there, several at a time."""

from __future__ import annotations

import asyncio

import msgspec

from agent.contract.images import BundledLayer, ImageBundle
from orchestrator.errors import PystackError
from orchestrator.transport.agent_client import AgentClient

PARALLEL = 4


async def ship(image: str, source: AgentClient, target: AgentClient) -> int:
    """Copy *image* to *target*; returns the bytes of the layers that were copied. Raises RefusedError or UnreachableError; the
    next try copies only the layers that are still missing."""
    bundle = msgspec.convert(await source.call("GET", f"/pystack/images/{image}/bundle"), ImageBundle)
    wanted = set(await target.call("POST", "/pystack/images/missing-layers", data=msgspec.json.encode(bundle)))
    slots = asyncio.Semaphore(PARALLEL)

    async def carry(digest: str, layer: BundledLayer | None = None) -> None:
        async with slots:
            params = {"diff_id": layer.diff_id} if layer else {}
            chunks = source.chunks(f"/pystack/blobs/{digest}")
            await target.call("PUT", f"/pystack/blobs/{digest}", params=params, data=chunks)

    missing = [layer for layer in bundle.layers if layer.digest in wanted]
    try:
        async with asyncio.TaskGroup() as group:
            for layer in missing:
                group.create_task(carry(layer.digest, layer))
            group.create_task(carry(bundle.config))
    except ExceptionGroup as errors:
        refusals = errors.subgroup(PystackError)
        if refusals is None:
            raise
        raise refusals.exceptions[0] from None  # a single one: callers show its message
    await carry(bundle.digest)
    await target.call("POST", "/pystack/images/commit", data=msgspec.json.encode(bundle))
    return sum(layer.size for layer in missing)
