"""Engine API: build. The context is the request's body. Source: Docker Engine API v1.43, ImageBuild."""

from __future__ import annotations

import json

from aiohttp import web

from agent.api.images import Stream
from agent.api.keys import ENGINE, flag
from agent.images import build as builder

routes = web.RouteTableDef()


@routes.post("/build")
async def build(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    query = request.query
    wish = builder.Wish(
        dockerfile=query.get("dockerfile") or "Dockerfile", tags=tuple(t for t in query.getall("t", []) if t),
        args=json.loads(query.get("buildargs") or "{}"), target=query.get("target", ""),
        labels=json.loads(query.get("labels") or "{}"), no_cache=flag(request, "nocache"), pull=flag(request, "pull"),
        network=query.get("networkmode", ""), platform=query.get("platform", ""), shm_size=int(query.get("shmsize") or 0),
        extra_hosts=tuple(query.getall("extrahosts", [])), contexts=json.loads(query.get("contexts") or "{}"),
        ulimits=tuple(f"{u['Name']}={u['Soft']}:{u['Hard']}" for u in json.loads(query.get("ulimits") or "[]")),
        privileged=flag(request, "privileged"),
    )
    stream = Stream(request)

    async def work() -> dict[str, object]:
        image = await builder.build(
            engine.images, engine.runtime.program, engine.paths.root / "build", request.content.iter_any(), wish,
            lambda text: stream.tell({"stream": text}),
        )
        return {"aux": {"ID": image.id}, "stream": f"Successfully built {image.id[7:19]}\n"}

    return await stream.run(work())
