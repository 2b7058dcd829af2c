"""Which images may be run here, what their registries have, what they are made of."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, answer, given
from agent.contract.trust import VerdictRequest
from agent.errors import ImageNotFoundError
from agent.images import sbom

routes = web.RouteTableDef()
AT_ONCE = 4


@routes.post("/pystack/images/verdicts")
async def verdicts(request: web.Request) -> web.Response:
    """A VerdictRequest → a Verdict on each image; none where neither a policy nor a lock refuses anything."""
    trust = request.app[ENGINE].context.trust
    asked = await given(request, VerdictRequest)
    found = await trust.verdicts(asked.images, asked.trust) if trust.applies(asked.trust) else []
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.get("/pystack/images/{name:.+}/sbom")
async def bill_of_materials(request: web.Request) -> web.Response:
    """What the image is made of, as an SPDX document."""
    store = request.app[ENGINE].images
    image = store.find(request.match_info["name"])
    if not store.is_complete(image):
        raise ImageNotFoundError(f"image {request.match_info['name']} is not whole on this node: pull it")
    return answer(await sbom.document(store, image))


@routes.post("/pystack/images/registry")
async def at_registry(request: web.Request) -> web.Response:
    """A list of names → what their registries have under each now (RegistryImage)."""
    trust, slots = request.app[ENGINE].context.trust, asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> object:
        async with slots:
            return msgspec.to_builtins(await trust.at_registry(name))

    return answer(await asyncio.gather(*(ask(name) for name in await given(request, list[str]))))
