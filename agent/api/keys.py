"""What handlers find in the application."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.errors import BadRequestError
from agent.mailbox import Mailbox
from agent.trees.extract import quoted

T = TypeVar("T")

ENGINE = web.AppKey("engine", Engine)
CONVERGER = web.AppKey("converger", Converger)
MAILBOX = web.AppKey("mailbox", Mailbox)
API_VERSION = "1.43"


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter as Docker's clients write it."""
    return request.query.get(name, "").lower() in ("1", "true", "t", "yes")


async def body(request: web.Request, shape: Any) -> dict[str, Any]:
    """The JSON object of a request, of that *shape*; an empty body is an empty object. Raises BadRequestError."""
    found: dict[str, Any] = decoded(await request.read() or b"{}", shape)
    return found


async def given(request: web.Request, kind: type[T]) -> T:
    """The body of a request as a *kind*. Raises BadRequestError."""
    return decoded(await request.read(), kind)


def decoded(raw: bytes, kind: type[T]) -> T:
    """Raises BadRequestError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise BadRequestError("malformed request: the body is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:  # the second: text that is no UTF-8
        raise BadRequestError(f"malformed request: {error}") from None


def number(request: web.Request, name: str, default: int = 0) -> int:
    """A whole number of the query, *default* where it is left out or empty. Raises BadRequestError."""
    text = request.query.get(name, "")
    if text and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise BadRequestError(f"{name}={quoted(text)}: a whole number")
    return int(text) if text else default


def seconds(request: web.Request, name: str) -> float | None:
    """A span of time of the query; None where it is left out or empty. Raises BadRequestError."""
    text = request.query.get(name, "")
    if text and not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise BadRequestError(f"{name}={quoted(text)}: a number of seconds")
    return float(text) if text else None


def terminal_size(request: web.Request) -> tuple[int, int]:
    """Rows and columns that the query asks for. Raises BadRequestError."""
    size = number(request, "h"), number(request, "w")
    if not all(0 <= n < 1 << 16 for n in size):
        raise BadRequestError(f"a terminal of {size[0]} rows and {size[1]} columns does not exist")
    return size
