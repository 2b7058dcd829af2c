"""Routes of nodes, and of the Docker Engine API of each."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.wire import WireStruct
from orchestrator.server import proxy
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.events import ignore
from orchestrator.server.membership import NodeUpdateRequest
from orchestrator.server.node_add import NodeAddRequest
from orchestrator.server.node_upgrade import upgrade_node
from orchestrator.server.plane import ControlPlane
from orchestrator.server.rebalance import proposed_moves as find_moves
from orchestrator.server.rebalance import rebalance as make_moves
from orchestrator.transport.shipping import ship


class NodeRow(TypedDict):
    """One row of `pystack node ls`. *capacity* and *reserved* are in cores and bytes. *mtu* is what paths to the node carry;
    *devices* are the names of its CDI devices, *features* what its kernel and its disk can do (`ifb`, `project-quota` …)."""

    name: str
    id: str
    address: str
    underlay: str
    mtu: int
    devices: list[str]
    state: str
    availability: str
    labels: dict[str, str]
    taints: list[str]
    capacity: dict[str, float]
    reserved: dict[str, float]
    tasks: int
    version: str
    platform: str
    transport: str
    features: list[str]
    error: str


class ShipRequest(WireStruct, frozen=True, kw_only=True):
    """An image, by a name or its ID, and the node that is to have it, "" for the server's own."""

    image: str
    to: str = ""


def node_row(plane: ControlPlane, name: str) -> NodeRow:
    """The row of the node *name*. Raises RefusedError (404)."""
    member = plane.cluster.get(name)
    node = member.node
    tasks = [t for t in plane.state.tasks.values() if t.node == node.name]
    cpus, memory = plane.inputs.reserved(tasks)
    return NodeRow(
        name=node.name,
        id=node.id,
        address=node.target or ("local" if node.is_servers_own else "uplink"),
        underlay=node.underlay,
        mtu=node.mtu,
        state="ready" if member.ready else "down",
        availability=node.availability,
        labels=dict(node.labels),
        devices=list(node.info.devices),
        taints=list(node.taints),
        capacity={"cpus": node.info.cpus, "memory": node.info.memory},
        reserved={"cpus": cpus, "memory": memory},
        tasks=len(tasks),
        version=node.info.version,
        platform=f"{node.info.os}/{node.info.arch}",
        features=list(node.info.features),
        error=member.problem or node.info.problem,
        transport=node.transport,
    )


async def list_nodes(request: web.Request) -> web.Response:
    """The nodes of the cluster."""
    plane = request.app[PLANE]
    return json_response([node_row(plane, name) for name in sorted(plane.cluster.members)])


async def get_node(request: web.Request) -> web.Response:
    """One node."""
    return json_response(node_row(request.app[PLANE], request.match_info["node"]))


async def add_node(request: web.Request) -> web.Response:
    """Add a host to the cluster: install and start its agent over SSH."""
    plane = request.app[PLANE]
    node = await plane.membership.add(msgspec.json.decode(await request.read(), type=NodeAddRequest))
    return json_response(node_row(plane, node.name))


async def change_node(request: web.Request) -> web.Response:
    """Change labels, taints, availability or address of a node."""
    plane = request.app[PLANE]
    body = msgspec.json.decode(await request.read(), type=NodeUpdateRequest)
    name = plane.cluster.get(request.match_info["node"]).node.name
    await plane.drainer.change(name, body, ignore)
    return json_response(node_row(plane, name))


async def upgrade(request: web.Request) -> web.Response:
    """Exchange a node's agent for this server's version, over SSH."""
    plane = request.app[PLANE]
    member = plane.cluster.get(request.match_info["node"])
    await upgrade_node(member)
    return json_response(node_row(plane, member.node.name))


async def drain_node(request: web.Request) -> web.StreamResponse:
    """Drain a node: move its tasks to others. A stream of events."""
    plane, name = request.app[PLANE], request.match_info["node"]
    plane.cluster.get(name)
    return await stream(request, lambda emit: plane.drainer.change(name, NodeUpdateRequest(availability="drain"), emit))


async def taint_node(request: web.Request) -> web.StreamResponse:
    """Set or remove taints; tasks that do not tolerate a NoExecute taint move. A stream of events."""
    plane, name = request.app[PLANE], request.match_info["node"]
    body = msgspec.json.decode(await request.read(), type=NodeUpdateRequest)
    plane.cluster.get(name)
    return await stream(request, lambda emit: plane.drainer.change(name, body, emit))


async def remove_node(request: web.Request) -> web.Response:
    """Remove a node."""
    plane, name = request.app[PLANE], request.match_info["node"]
    node = plane.cluster.get(name).node
    tasks = sum(t.node == node.name for t in plane.state.tasks.values())
    await plane.membership.remove(name, tasks, force=request.query.get("force") == "1")
    return web.Response(status=204)


async def proposed_moves(request: web.Request) -> web.Response:
    """Moves that would even out the cluster. Changes nothing."""
    plane = request.app[PLANE]
    limit = int(request.query.get("limit", "10"))
    return json_response(find_moves(plane.state, plane.inputs, limit))


async def rebalance(request: web.Request) -> web.StreamResponse:
    """Make those moves; a stream of events."""
    plane = request.app[PLANE]
    limit = int(request.query.get("limit", "10"))
    return await stream(request, lambda emit: make_moves(plane.state, plane.inputs, plane.rollouts, limit, emit))


async def ship_image(request: web.Request) -> web.Response:
    """Copy an image that the node has to another, the server's own by default, under its names."""
    plane = request.app[PLANE]
    wanted = msgspec.json.decode(await request.read(), type=ShipRequest)
    source, target = plane.cluster.get(request.match_info["node"]), plane.cluster.get(wanted.to or plane.cluster.local)
    if source is not target:
        await ship(wanted.image, source.client, target.client)
    return web.Response(status=204)


async def engine(request: web.Request) -> web.StreamResponse:
    """A node's Docker Engine API."""
    plane = request.app[PLANE]
    member = plane.cluster.get(request.match_info["node"])
    path = request.rel_url.raw_path.split("/engine", 1)[1]
    return await proxy.forward(request, member.client, path)
