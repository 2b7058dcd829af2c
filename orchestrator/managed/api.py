"""The REST API of the servers themselves: an extension of the server's API."""

from __future__ import annotations

import msgspec
from aiohttp import web

from orchestrator.errors import RefusedError
from orchestrator.managed.cluster import Admission, JoinRequest, ManagedMembers, ServerRow
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.responses import json_response

MEMBERS = web.AppKey("managed_members", ManagedMembers)


def _members(request: web.Request) -> ManagedMembers:
    """Raises RefusedError (409) where pystack manages no etcd."""
    found = request.app.get(MEMBERS)
    if found is None:
        raise RefusedError(
            "this cluster's store is not an etcd that pystack manages: one server alone, with its store in a file, gets it by "
            "`pystack server init --advertise USER@HOST`; the members of an etcd that was given with --store are its owner's",
            409,
        )
    return found


async def list_servers(request: web.Request) -> web.Response:
    """The servers, and the members of etcd on their hosts."""
    return json_response(await _members(request).rows())


async def admit(request: web.Request) -> web.Response:
    """Let a host join: it gets certificates, and is a member of etcd that does not vote yet."""
    return json_response(await _members(request).admit(msgspec.json.decode(await request.read(), type=JoinRequest)))


async def promote(request: web.Request) -> web.Response:
    """Let a member vote, once it is in step."""
    await _members(request).promote(request.match_info["server"])
    return web.Response(status=204)


async def remove(request: web.Request) -> web.Response:
    """Let a server go."""
    await _members(request).remove(request.match_info["server"])
    return web.Response(status=204)


ROUTES: tuple[Route, ...] = (
    ("GET", "/v1/servers", list_servers, None, list[ServerRow]),
    ("POST", "/v1/servers", admit, JoinRequest, Admission),
    ("POST", "/v1/servers/{server}/promote", promote, None, None),
    ("DELETE", "/v1/servers/{server}", remove, None, None),
)


def extension(members: ManagedMembers | None) -> ApiExtension:
    """What these routes add to the server's API; *members* is None where pystack manages no etcd."""

    def attach(app: web.Application) -> None:
        if members:
            app[MEMBERS] = members

    return ApiExtension(
        routes=ROUTES,
        readable_when_stale=frozenset(),
        attach=attach,
        checks=members.checks if members else tuple,
    )
