"""Routes of the backup of a whole cluster."""

from __future__ import annotations

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.server import cluster_backup
from orchestrator.server.api.responses import PLANE, STOP, json_response


class ClusterBackupRequest(WireStruct, frozen=True, kw_only=True):
    """The *passphrase* that the file is encrypted with."""

    passphrase: str


class ClusterRestoreRequest(WireStruct, frozen=True, kw_only=True):
    """The file (*data*), and its *passphrase*."""

    passphrase: str
    data: bytes


async def back_up_cluster(request: web.Request) -> web.Response:
    """All that makes the cluster, as one encrypted file."""
    plane = request.app[PLANE]
    body = msgspec.json.decode(await request.read(), type=ClusterBackupRequest)
    raw = await cluster_backup.backup(plane.store, plane.contents, plane.cluster, body.passphrase)
    return web.Response(body=raw, content_type="application/octet-stream")


async def restore_cluster(request: web.Request) -> web.Response:
    """Fill an empty cluster with what such a file has; the server then restarts. Its stacks are brought up by the client,
    once the nodes are there."""
    plane = request.app[PLANE]
    body = msgspec.json.decode(await request.read(), type=ClusterRestoreRequest)
    found = await cluster_backup.restore(plane.state, plane.contents, body.data, body.passphrase)
    plane.must_restart = True
    request.app[STOP].set()
    return json_response(msgspec.to_builtins(found))
