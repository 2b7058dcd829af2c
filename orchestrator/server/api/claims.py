"""The claim to deploy a stack: one person's at a time, for as long as their connection lives."""

from __future__ import annotations

import asyncio
import time

import msgspec
from aiohttp import web

from agent.contract.printable import quoted
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError

CLAIMS: web.AppKey[dict[str, tuple[ClaimRequest, float]]] = web.AppKey("claims", dict)
"""By stack: who deploys it, and since when. A server that begins to lead knows of none: the connections ended with the last
one."""


class ClaimRequest(WireStruct, frozen=True, kw_only=True):
    """Who deploys (*person*), and which *commit*."""

    person: str
    commit: str


async def claim_stack(request: web.Request) -> web.StreamResponse:
    """Claim the right to deploy a stack, until the connection is closed; 409 where somebody else has it."""
    stack, claims = request.match_info["stack"], request.app[CLAIMS]
    body = msgspec.json.decode(await request.read(), type=ClaimRequest)
    if stack in claims:
        other, since = claims[stack]
        age = time.monotonic() - since
        raise RefusedError(
            f"{quoted(other.person)} deploys commit {quoted(other.commit[:12])} of {stack} since {age:.0f} s: wait for it",
            409,
        )
    claims[stack] = body, time.monotonic()
    try:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()  # the handler is cancelled when the client goes away
    finally:
        del claims[stack]
    return response
