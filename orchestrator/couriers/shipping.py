"""Carries an image from one node to another: only the layers that are missing there, several at once."""

from __future__ import annotations

import asyncio

import msgspec

from agent.manifest import ImageCargo, LayerCargo
from orchestrator.couriers.courier import Courier

PARALLEL = 4


async def ship(image: str, source: Courier, target: Courier) -> int:
    """Bring *image* to *target*; returns the bytes that went over. Raises RefusedError or UnreachableError; a second try
    goes on where this one ended, layer by layer."""
    cargo = msgspec.convert(await source.call("GET", f"/pystack/images/{image}/cargo"), ImageCargo)
    lacks = set(await target.call("POST", "/pystack/images/lacks", data=msgspec.json.encode(cargo)))
    slots = asyncio.Semaphore(PARALLEL)

    async def carry(digest: str, layer: LayerCargo | None = None) -> None:
        async with slots:
            params = {"diff_id": layer.diff_id} if layer else {}
            chunks = source.chunks(f"/pystack/blobs/{digest}")
            await target.call("PUT", f"/pystack/blobs/{digest}", params=params, data=chunks)

    missing = [layer for layer in cargo.layers if layer.digest in lacks]
    async with asyncio.TaskGroup() as group:
        for layer in missing:
            group.create_task(carry(layer.digest, layer))
        group.create_task(carry(cargo.config))
    await carry(cargo.digest)
    await target.call("POST", "/pystack/images/landed", data=msgspec.json.encode(cargo))
    return sum(layer.size for layer in missing)
