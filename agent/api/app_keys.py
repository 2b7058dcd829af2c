"""The keys of the application and of requests, parameters of queries, and answers."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from agent.build.builder import Builder
from agent.contract.printable import quoted
from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.errors import BadRequestError
from agent.manifest_watcher import EtcdManifestWatcher
from agent.uplink import Uplink

T = TypeVar("T")

ENGINE = web.AppKey("engine", Engine)
BUILDER = web.AppKey("builder", Builder)
CONVERGER = web.AppKey("converger", Converger)
MANIFEST_WATCHER = web.AppKey("manifest_watcher", EtcdManifestWatcher)
UPLINK = web.AppKey("uplink", Uplink)
"""Not there where the agent is a server's own."""
BODY = "body"
"""Of a request: its body, compared with its route's shape."""
VERSION = "version"
"""The API version of a request, (1, 43)."""
FALSE = ("", "0", "no", "false", "none")


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter: all but a few words is true, as Docker reads it."""
    return request.query.get(name, "").strip().lower() not in FALSE


def number(request: web.Request, name: str, default: int = 0) -> int:
    """A whole number of the query, *default* if it is missing or empty. Raises BadRequestError."""
    text = request.query.get(name, "")
    if text and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise BadRequestError(f"{name}={quoted(text)}: a whole number is wanted here")
    return int(text) if text else default


def seconds(request: web.Request, name: str) -> float | None:
    """A span of time of the query; None if it is missing or empty. Raises BadRequestError."""
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


async def given(request: web.Request, kind: type[T]) -> T:
    """The body of a request of ours as a *kind*. Raises BadRequestError."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except RecursionError:
        raise BadRequestError("malformed request: the body is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:  # the second: text that is not UTF-8
        raise BadRequestError(f"malformed request: {error}") from None


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
