"""Routes of the tokens by which machines join."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.times import timestamp_if_set
from agent.contract.wire import WireStruct
from orchestrator.server.api.guard import change_of
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.joining import NodeToken


class NodeTokenRequest(WireStruct, frozen=True, kw_only=True):
    """*uses* is how many machines may join, *hours* how long the token holds; *labels* are those of the nodes. *name* is chosen
    where it is ""."""

    uses: int = 1
    hours: float = 1.0
    labels: tuple[tuple[str, str], ...] = ()
    name: str = ""


class NodeTokenRow(TypedDict):
    """One row of `pystack node token ls`. *join* is what a machine joins with, there once, when the token is made; *problem* is
    why nobody can join with it, "" if that is not so."""

    name: str
    uses: int
    labels: dict[str, str]
    created: str
    expires: str
    nodes: tuple[str, ...]
    problem: str
    join: str


def _row(token: NodeToken, join: str = "") -> NodeTokenRow:
    return NodeTokenRow(
        name=token.name,
        uses=token.uses,
        labels=dict(token.labels),
        created=token.created,
        expires=timestamp_if_set(token.expires),
        nodes=token.nodes,
        problem=token.problem(),
        join=join,
    )


async def list_node_tokens(request: web.Request) -> web.Response:
    """The tokens by which machines join; their secrets are kept nowhere."""
    return json_response([_row(t) for _, t in sorted(request.app[PLANE].joiner.tokens.items())])


async def create_node_token(request: web.Request) -> web.Response:
    """Create a token by which machines join; the answer alone has its secret."""
    body = msgspec.json.decode(await request.read(), type=NodeTokenRequest)
    token, join = await request.app[PLANE].joiner.create_token(body.uses, body.hours, dict(body.labels), body.name)
    change_of(request).target = f"{token.name}: {token.uses} machines, until {timestamp_if_set(token.expires)}"
    return json_response(_row(token, join))


async def remove_node_token(request: web.Request) -> web.Response:
    """Remove a token: nobody joins with it from now on; nodes that did stay."""
    await request.app[PLANE].joiner.remove_token(request.match_info["name"])
    return web.Response(status=204)


async def rotate_node_certificate(request: web.Request) -> web.Response:
    """Have a node that joined by a token exchange its key and certificate now."""
    await request.app[PLANE].joiner.rotate(request.match_info["node"])
    return web.Response(status=204)
