"""What handlers find in the application."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.mailbox import Mailbox

ENGINE = web.AppKey("engine", Engine)
CONVERGER = web.AppKey("converger", Converger)
MAILBOX = web.AppKey("mailbox", Mailbox)
API_VERSION = "1.43"


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter as Docker's clients write it."""
    return request.query.get(name, "").lower() in ("1", "true", "t", "yes")


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; an empty body is an empty object."""
    raw = await request.read()
    if not raw:
        return {}
    import msgspec

    return msgspec.json.decode(raw, type=dict[str, Any])
