"""Images from node to node without a registry: a node gets the layers that it lacks from another."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from agent.api.app_keys import ENGINE, answer, given
from agent.contract.images import BundledLayer, ImageBundle
from agent.errors import ImageError, ImageNotFoundError
from agent.images import documents
from agent.images.reference import parse

routes = web.RouteTableDef()


@routes.post("/pystack/images/ids")
async def ids(request: web.Request) -> web.Response:
    """A list of names or IDs → those that are whole on this node, with their IDs."""
    store = request.app[ENGINE].images
    out = {}
    for name in await given(request, list[str]):
        try:
            image = store.find(name)
        except (ImageError, ImageNotFoundError):
            continue
        if store.is_complete(image):
            out[name] = image.id
    return answer(out)


@routes.post("/pystack/images/ages")
async def ages(request: web.Request) -> web.Response:
    """A list of names → seconds since each was last pulled, null for one that never was."""
    store = request.app[ENGINE].images
    names = await given(request, list[str])
    return answer({name: store.age_s(parse(name)) for name in names})


@routes.get("/pystack/images/{name:.+}/bundle")
async def bundle(request: web.Request) -> web.Response:
    """The digests that must be copied to have the image *name* on another node."""
    store = request.app[ENGINE].images
    image = store.find(request.match_info["name"])
    manifest = store.manifest(image.digest)
    layers = tuple(
        BundledLayer(digest=layer.digest, diff_id=diff_id, size=layer.size)
        for layer, diff_id in zip(manifest.layers, image.layers, strict=True)
    )
    found = ImageBundle(digest=image.digest, config=image.id, layers=layers, names=image.names)
    return web.Response(body=msgspec.json.encode(found), content_type="application/json")


@routes.post("/pystack/images/missing-layers")
async def missing_layers(request: web.Request) -> web.Response:
    """An ImageBundle → the digests of its layers that this node does not have."""
    store = request.app[ENGINE].images
    wanted = await given(request, ImageBundle)
    return answer([x.digest for x in wanted.layers if not (store.has_layer(x.diff_id) and store.has_blob(x.digest))])


@routes.get("/pystack/blobs/{digest}")
async def get_blob(request: web.Request) -> web.StreamResponse:
    """Send a blob of the image store by its digest."""
    path = request.app[ENGINE].images.blob(request.match_info["digest"])
    if not path.exists():
        raise ImageNotFoundError(f"blob {request.match_info['digest']} is not on this node")
    return web.FileResponse(path)


@routes.put("/pystack/blobs/{digest}")
async def put_blob(request: web.Request) -> web.Response:
    """A manifest or config; with `diff_id` a layer, verified and unpacked as it comes."""
    store = request.app[ENGINE].images
    digest, diff_id = request.match_info["digest"], request.query.get("diff_id", "")
    store.blob(digest)  # raises ImageError if it is not one
    if diff_id:
        store.blob(diff_id)
        await store.unpack(request.content.iter_chunked(1 << 18), digest=digest, diff_id=diff_id)
    else:
        await asyncio.to_thread(store.put_blob, await request.read(), digest)
    return web.Response(status=204)


@routes.post("/pystack/images/commit")
async def commit_image(request: web.Request) -> web.Response:
    """All blobs of an ImageBundle are here: from now on the image exists under its names."""
    store = request.app[ENGINE].images
    done = await given(request, ImageBundle)
    references = [parse(name) for name in done.names]
    if not store.has_blob(done.digest):
        raise ImageError(f"image {done.digest} lacks its manifest")
    raw = store.blob(done.digest).read_bytes()
    manifest = documents.manifest(raw, f"the manifest {done.digest}", store.limits)
    missing = [d.digest for d in (manifest.config, *manifest.layers) if not store.has_blob(d.digest)]
    if not missing:
        config = store.blob(manifest.config.digest).read_bytes()
        what = f"the config of image {done.digest}"
        ids = documents.config(config, what, store.limits, layers=len(manifest.layers)).rootfs.diff_ids
        missing = [diff_id for diff_id in ids if not store.has_layer(diff_id)]
    if missing:
        raise ImageError(f"image {done.digest} lacks {', '.join(missing[:5])}")
    for reference in references:
        store.tag(reference, done.digest)
    if not done.names:
        store.keep_untagged(done.digest)
    return web.Response(status=204)
