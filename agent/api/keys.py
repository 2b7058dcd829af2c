"""What handlers find in the application and in a request, and how they answer."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.errors import BadRequestError
from agent.mailbox import Mailbox

ENGINE = web.AppKey("engine", Engine)
CONVERGER = web.AppKey("converger", Converger)
MAILBOX = web.AppKey("mailbox", Mailbox)
BODY = "body"
"""Of a request: its body, compared with its route's shape."""
VERSION = "version"
"""Of a request: the version of the API that it is written in, (1, 43)."""
FALSE = ("", "0", "no", "false", "none")


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter: all but a few words is true, as Docker reads it."""
    return request.query.get(name, "").strip().lower() not in FALSE


def number(request: web.Request, name: str, default: int = 0) -> int:
    """A whole number of the query. Raises BadRequestError."""
    text = request.query.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise BadRequestError(f"{name}={text}: a whole number is wanted here") from None


def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request, with the fields of its route's shape that it has."""
    document: dict[str, Any] = request[BODY]
    return document


def since(request: web.Request, minor: int) -> bool:
    """Whether the request is written in API version 1.*minor* or a later one."""
    version: tuple[int, int] = request[VERSION]
    return version >= (1, minor)


def minor(request: web.Request) -> int:
    """The second number of the version that the request is written in."""
    version: tuple[int, int] = request[VERSION]
    return version[1]


def answer(document: Any, status: int = 200) -> web.Response:
    """*document* as JSON. Docker's command reads the message of an error only where the type is this one to the letter."""
    return web.Response(body=msgspec.json.encode(document), status=status, headers={"Content-Type": "application/json"})
