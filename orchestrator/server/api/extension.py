"""Routes that a package above the server adds to its API: the server does not import that package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from orchestrator.server.api.responses import Handler
from orchestrator.server.doctor import Check

Route = tuple[str, str, Handler, type | None, Any]
"""(method, path, handler, type of the request, type of the answer); a type is None if there is no JSON body."""


class ApiExtension(msgspec.Struct, frozen=True, kw_only=True):
    """*attach* puts into the application what the handlers of *routes* find there. *readable_when_stale* are the paths of which
    a GET needs nothing but memory: a server that does not lead answers them while the store is unreachable. *checks* are its
    part of `pystack doctor`."""

    routes: tuple[Route, ...]
    readable_when_stale: frozenset[str]
    attach: Callable[[web.Application], None]
    checks: Callable[[], Sequence[Check]] = tuple
