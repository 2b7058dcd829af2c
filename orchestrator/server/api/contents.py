"""Routes of configs and secrets that were created by hand."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.contents import ExternalContent
from orchestrator.server.plane import ControlPlane


class ContentRow(TypedDict):
    """A config or secret, and the stacks that use it; never its content."""

    name: str
    digest: str
    created: str
    updated: str
    stacks: list[str]


def _content_row(plane: ControlPlane, one: ExternalContent) -> ContentRow:
    return ContentRow(
        name=one.name,
        digest=one.digest,
        created=one.created,
        updated=one.updated,
        stacks=sorted(_users_of(plane, one.kind, one.name)),
    )


def _users_of(plane: ControlPlane, kind: str, name: str) -> set[str]:
    return {
        r.stack.name
        for r in plane.state.stacks.values()
        for c in r.stack.contents
        if c.external and (c.kind, c.name) == (kind, name)
    }


async def list_contents(request: web.Request) -> web.Response:
    """Configs, or secrets, that were created by hand."""
    plane, kind = request.app[PLANE], request.match_info["kind"]
    found = [one for _, one in sorted(plane.contents.named.items()) if one.kind == kind]
    return json_response([_content_row(plane, one) for one in found])


async def get_contents(request: web.Request) -> web.Response:
    """One config or secret, without its content."""
    plane = request.app[PLANE]
    one = plane.contents.find(request.match_info["kind"], request.match_info["name"])
    return json_response(_content_row(plane, one))


async def put_contents(request: web.Request) -> web.Response:
    """Create one; the request's body is its content."""
    plane = request.app[PLANE]
    made = await plane.contents.create(
        request.match_info["kind"],
        request.match_info["name"],
        await request.read(),
        replace=request.query.get("replace") == "1",
    )
    return json_response(_content_row(plane, made))


async def remove_contents(request: web.Request) -> web.Response:
    """Remove one that no stack uses."""
    plane, kind, name = request.app[PLANE], request.match_info["kind"], request.match_info["name"]
    await plane.contents.remove(kind, name, _users_of(plane, kind, name))
    return web.Response(status=204)
