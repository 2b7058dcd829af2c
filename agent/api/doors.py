"""Further listeners of the Engine API: sockets and a TLS port, each with its own clients and rights.

A read-only door answers GET and HEAD only. One of a project shows only objects with that project's label
(`com.docker.compose.project`, which stacks have too), acts on its containers, and creates nothing: a client that can create a
container controls the node. Source: Docker, "Protect the Docker daemon socket"; Docker Engine API v1.48, paths.
"""

from __future__ import annotations

import grp
import json
import os
import re
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from agent.api import describe, execs
from agent.api.app_keys import ENGINE
from agent.api.table import Handler
from agent.contract.tunnel import Listener
from agent.engine.networks.table import network_id
from agent.errors import BadRequestError, ForbiddenError, NotFoundError
from agent.settings import Door

PROJECT = "com.docker.compose.project"
CHANGING = re.compile(r"/containers/[^/]+/attach/ws$|/build$")
"""GET requests that do more than read."""
OF_ALL = re.compile(r"/(_ping|version|info)$|/images/(json|.+/(json|history))$")
LISTS = re.compile(r"/(events|containers/json|networks|volumes)$")
ONE = re.compile(r"/(containers|exec|networks|volumes)/([^/]+)(/.*)?$")
MAKING = ("create", "prune")


def group_of(name: str) -> int:
    """The number of a group of this host. Raises BadRequestError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadRequestError(f"docker.group {name!r}: there is no such group on this node: `groupadd {name}`") from None


def opened_to(path: Path, group: str) -> None:
    """Let the members of *group* use the socket at *path*; of its owner's own group where that is ""."""
    if group:
        os.chown(path, -1, group_of(group))


def context(door: Door) -> ssl.SSLContext:
    """A TLS context for clients with a certificate of the door's authority. Raises BadRequestError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        made.load_cert_chain(door.cert, door.key)
        made.load_verify_locations(door.ca)
    except (OSError, ssl.SSLError) as error:
        raise BadRequestError(
            f"docker.doors {door.listen}: its certificates cannot be read ({door.ca}, {door.cert}, "
            f"{door.key}): {error.strerror or error}"
        ) from None
    return made


def listen(door: Door, path: Path) -> Listener:
    """Take connections where the door listens to the socket at *path*. Raises BadRequestError."""
    place, made = urlsplit(door.listen), context(door)
    family = socket.AF_INET6 if ":" in (place.hostname or "") else socket.AF_INET
    try:
        return Listener(socket.create_server((place.hostname or "", place.port or 0), family=family), made, path)
    except OSError as error:
        raise BadRequestError(f"docker.doors {door.listen}: {error.strerror or error}") from None


def guard(door: Door, handler: Handler) -> Handler:
    """*handler*, for those requests that come through *door* and may."""

    async def answered(request: web.Request) -> web.StreamResponse:
        if door.access == "read" and (request.method not in ("GET", "HEAD") or CHANGING.search(request.path)):
            raise ForbiddenError(f"{request.method} {request.path}: this socket is for reading")
        return await handler(_of_project(request, door.project) if door.project else request)

    return answered


def _of_project(request: web.Request, project: str) -> web.Request:
    """*request*, if it concerns *project* or no project. Raises ForbiddenError, NotFoundError."""
    path, reads = request.path, request.method in ("GET", "HEAD")
    if LISTS.search(path) and reads:
        return _narrowed(request, project)
    if OF_ALL.search(path) and reads:
        return request
    found = ONE.search(path)
    if not found or found[2] in MAKING or (found[1] in ("networks", "volumes") and not reads):
        raise ForbiddenError(f"{request.method} {path}: this socket is for the containers of {project} alone")
    _belongs(request, found[1], found[2], project)
    return request


def _belongs(request: web.Request, kind: str, name: str, project: str) -> None:
    """Raises NotFoundError, as for a missing object, if it does not belong to *project*."""
    engine = request.app[ENGINE]
    if kind in ("containers", "exec"):
        known = execs.EXECS.get(name) if kind == "exec" else None
        record = known.record if known else engine.containers.find(name)
        labels = describe.all_labels(engine, record)
        word = "No such container"
    elif kind == "networks":
        network = next((n for n in engine.networks.table.all.values() if name in (n.name, network_id(n.name))), None)
        labels = {PROJECT: network.stack, **dict(network.labels)} if network else {}
        word = "network not found"
    else:
        volume, word = engine.volumes.all.get(name), "get: no such volume"
        labels = volume.labels if volume else {}
    if labels.get(PROJECT) != project:
        raise NotFoundError(f"{word}: {name}")


def _narrowed(request: web.Request, project: str) -> web.Request:
    """*request* with one filter more: a label of *project*'s."""
    try:
        filters = json.loads(request.query.get("filters") or "{}") or {}
        given = filters.get("label", [])
        labels = [given] if isinstance(given, str) else list(given)
    except (ValueError, AttributeError, TypeError):
        return request  # the handler that reads the filters refuses them
    query = dict(request.query) | {"filters": json.dumps(filters | {"label": [*labels, f"{PROJECT}={project}"]})}
    changed = request.clone(rel_url=request.rel_url.with_query(query))
    changed._match_info = request.match_info  # aiohttp's clone leaves it out
    return changed
