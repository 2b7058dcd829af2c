"""The routes of the page: an extension of the server's API."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from pathlib import Path

import msgspec
from aiohttp import web

from orchestrator.errors import RefusedError
from orchestrator.server.api.extension import ApiExtension, Route
from orchestrator.server.api.guard import sees
from orchestrator.server.api.responses import json_response
from orchestrator.ui import streams, usage
from orchestrator.ui.board import Board, Rows, difference, visible
from orchestrator.ui.stackfiles import StackFile, StackFileRequest, read

STATIC = Path(__file__).parent / "static"
BOARD = web.AppKey("board", Board)
FOLDER = web.AppKey("pasted", Path)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts and styles of our own files alone, none in a document. Source: CSP Level 3."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def files() -> Mapping[str, bytes]:
    """The files of the page by their paths: no other is ever sent."""
    found = (p for p in STATIC.rglob("*") if p.suffix in TYPES)
    return {p.relative_to(STATIC).as_posix(): p.read_bytes() for p in found}


FILES: web.AppKey[Mapping[str, bytes]] = web.AppKey("files", Mapping)


async def to_page(request: web.Request) -> web.Response:
    """Lead to the page."""
    return web.Response(status=308, headers={"Location": "/ui/"})


async def page(request: web.Request) -> web.Response:
    """The page, and its files."""
    path = request.match_info["path"] or "index.html"
    body = request.app[FILES].get(path)
    if body is None:
        raise RefusedError("the page has no such file", 404)
    suffix = Path(path).suffix
    kind = TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    response = web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)
    response.enable_compression()
    return response


async def live(request: web.Request) -> web.StreamResponse:
    """Everything that a page shows, and what of it changes, as server-sent events."""
    board = request.app[BOARD]
    response = await streams.sse(request)
    alive = asyncio.create_task(streams.keep_alive(response))
    listening = asyncio.create_task(_events(request, response))
    known: Rows = {}
    rows = board.follow()
    try:
        async for found in rows:
            mine = visible(found, lambda stack: sees(request, stack))
            if change := difference(known, mine):
                await streams.send(response, "rows", change)
            elif not known:
                await streams.send(response, "rows", {"put": {}, "gone": {}})
            known = mine
    finally:
        alive.cancel()
        listening.cancel()
        await rows.aclose()  # type: ignore[attr-defined]
    return response


async def _events(request: web.Request, response: web.StreamResponse) -> None:
    """The changes of tasks, those that were and those that come."""
    board = request.app[BOARD]
    await streams.send(response, "past", [e for e in board.events if sees(request, e["stack"])])
    async for event in board.changes():
        if sees(request, event["stack"]):
            await streams.send(response, "change", event)


async def read_stackfile(request: web.Request) -> web.Response:
    """The stack of a stack file's text. It may name no other file, variable or build."""
    body = msgspec.json.decode(await request.read(), type=StackFileRequest)
    return json_response(await read(body, request.app[FOLDER]))


ROUTES: tuple[Route, ...] = (
    ("GET", "/ui", to_page, None, None),
    ("GET", "/ui/{path:.*}", page, None, None),
    ("GET", "/v1/live", live, None, None),
    ("POST", "/v1/stackfile", read_stackfile, StackFileRequest, StackFile),
    ("GET", "/v1/stacks/{stack}/tasks/{task}/logs", streams.logs, None, None),
    ("GET", "/v1/stacks/{stack}/tasks/{task}/stats", streams.stats, None, None),
    ("GET", "/v1/stacks/{stack}/tasks/{task}/shell", streams.shell, None, None),
    ("GET", "/v1/stacks/{stack}/usage", usage.of_stack, None, None),
    ("GET", "/v1/nodes/{node}/usage", usage.of_node, None, None),
)


def extension(board: Board, folder: Path) -> ApiExtension:
    """The routes, for the server's application; pasted files lie in *folder* while they are read."""
    found = files()

    def attach(app: web.Application) -> None:
        app[BOARD], app[FOLDER], app[FILES] = board, folder, found

    return ApiExtension(routes=ROUTES, readable_when_stale=frozenset(), attach=attach)
