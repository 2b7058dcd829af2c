"""Engine API: build. The context is the request's body. Source: Docker Engine API v1.43, ImageBuild."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from aiohttp import web

from agent.api.images import Stream
from agent.api.keys import ENGINE, flag
from agent.images import build as builder

T = TypeVar("T")


def _given(request: web.Request, name: str, default: T) -> T:
    """A parameter in JSON; null is as good as none."""
    return cast(T, json.loads(request.query.get(name) or "null") or default)


async def build(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    query = request.query
    ulimits: list[dict[str, Any]] = _given(request, "ulimits", [])
    wish = builder.Wish(
        dockerfile=query.get("dockerfile") or "Dockerfile", tags=tuple(t for t in query.getall("t", []) if t),
        args=_given(request, "buildargs", {}), target=query.get("target", ""),
        labels=_given(request, "labels", {}), no_cache=flag(request, "nocache"), pull=flag(request, "pull"),
        network="" if query.get("networkmode") == "default" else query.get("networkmode", ""),
        platform=query.get("platform", ""), shm_size=int(query.get("shmsize") or 0),
        extra_hosts=tuple(query.getall("extrahosts", [])), contexts=_given(request, "contexts", {}),
        ulimits=tuple(f"{u['Name']}={u['Soft']}:{u['Hard']}" for u in ulimits),
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
