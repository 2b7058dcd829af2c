"""A request to a program in a container that answers HTTP at a unix socket of its own: no port of the host is needed for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import aiohttp
from aiohttp import web

from agent.api.app_keys import ENGINE
from agent.contract.printable import quoted
from agent.errors import BadRequestError, ConflictError
from agent.trees.tree import Tree

routes = web.RouteTableDef()
ANSWER_S = 30.0
LARGEST_ANSWER = 64 << 20


@routes.route("*", "/pystack/containers/{name}/http/{path:.*}")
async def forward(request: web.Request) -> web.StreamResponse:
    """The answer of the program that listens at the unix socket `socket` (query) of the container's own tree. Headers but the
    content type do not go along, neither way."""
    record = request.app[ENGINE].containers.find(request.match_info["name"])
    path = request.query.get("socket", "")
    if not path.startswith("/"):
        raise BadRequestError(f"socket={quoted(path)}: an absolute path in the container")
    if not record.running or not record.process:
        raise ConflictError(f"container {record.name} is not running")
    body = await request.read()
    try:
        with _reachable(record.process.pid, path) as reachable:
            connector = aiohttp.UnixConnector(path=reachable)
            timeout = aiohttp.ClientTimeout(total=ANSWER_S)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                headers = {"Content-Type": request.content_type} if body else {}
                asked = session.request(
                    request.method, f"http://localhost/{request.match_info['path']}", data=body or None, headers=headers
                )
                async with asked as reply:
                    content = await reply.content.read(LARGEST_ANSWER)
                    return web.Response(status=reply.status, body=content, content_type=reply.content_type)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = "it takes too long" if isinstance(error, TimeoutError) else str(error)
        raise ConflictError(f"nothing answers at {quoted(path)} in {record.name}: {why}") from error


@contextlib.contextmanager
def _reachable(pid: int, path: str) -> Iterator[str]:
    """A path of this process that leads to the socket *path* of the container of process *pid*: no link that the container
    has put there leads anywhere else. Raises OSError."""
    with Tree.at(f"/proc/{pid}/root") as tree:
        fd = tree.open(path, os.O_PATH)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
