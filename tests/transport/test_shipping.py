"""What becomes of an image whose copy fails half way: one error, and the next try continues."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agent.contract.images import BundledLayer, ImageBundle
from orchestrator.errors import RefusedError
from orchestrator.transport.agent_client import AgentClient
from orchestrator.transport.shipping import ship


async def serve(path: Path, routes: list[web.RouteDef]) -> web.AppRunner:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner


async def test_a_node_that_refuses_a_layer_is_named_by_one_error(tmp_path: Path) -> None:
    layers = tuple(BundledLayer(digest=f"sha256:{n}", diff_id=f"sha256:d{n}", size=4) for n in range(3))
    bundle = ImageBundle(digest="sha256:m", config="sha256:c", layers=layers, names=("i",))

    async def describe(request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(bundle), content_type="application/json")

    async def give(request: web.Request) -> web.Response:
        return web.Response(body=b"blob")

    async def missing(request: web.Request) -> web.Response:
        return web.json_response([layer.digest for layer in layers])

    async def refuse(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"message": "no space left on device"}, status=507)

    source = await serve(
        tmp_path / "a.sock", [web.get("/pystack/images/i/bundle", describe), web.get("/pystack/blobs/{d}", give)]
    )
    target = await serve(
        tmp_path / "b.sock", [web.post("/pystack/images/missing-layers", missing), web.put("/pystack/blobs/{d}", refuse)]
    )
    clients = AgentClient("a", tmp_path / "a.sock"), AgentClient("b", tmp_path / "b.sock")
    try:
        with pytest.raises(RefusedError, match=r"^no space left on device$") as refused:
            await ship("i", *clients)
        assert refused.value.status == 507
    finally:
        for client in clients:
            await client.close()
        await source.cleanup()
        await target.cleanup()
