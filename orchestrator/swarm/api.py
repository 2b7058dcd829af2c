"""The Engine API of the cluster, at a socket of the server that leads: Swarm's endpoints from what the control plane knows, and
everything else from the server's own node.

Source: Docker Engine API v1.48, sections Swarm, Node, Service, Task, Secret, Config, and SystemInfo's block Swarm.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from agent.contract.printable import quoted
from orchestrator.errors import RefusedError
from orchestrator.server import proxy, registry_login
from orchestrator.server.api.responses import PLANE, Handler, errors
from orchestrator.server.plane import ControlPlane
from orchestrator.swarm import changes, logs, objects
from orchestrator.swarm.objects import Object
from orchestrator.swarm.view import View, filtered

KINDS = {"nodes": "node", "services": "service", "tasks": "task", "secrets": "secret", "configs": "config"}
PREFIXES = ("", "/v{version:[0-9][0-9.]*}")
NETWORKS = web.AppKey("networks", dict[str, str])
"""Names by IDs of overlays that clients made, and that wait for services."""
MOST = 10_000
LARGEST = 16 << 20
"""Bytes of a request's body that is read as a whole."""


def _answer(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, headers={"Content-Type": "application/json"})


async def _body(request: web.Request) -> Object:
    document = msgspec.json.decode(await request.read() or b"{}")
    if not isinstance(document, dict):
        raise RefusedError("the body is to be an object", 400)
    return document


async def listing(kind: str, request: web.Request) -> web.Response:
    """All of a kind that the filters leave."""
    found = filtered(kind, View(request.app[PLANE]).all(kind), request.query.get("filters", ""))
    if kind == "service" and request.query.get("status", "") not in ("1", "true"):
        found = [{k: v for k, v in d.items() if k != "ServiceStatus"} for d in found]
    return _answer([_public(d) for d in found])


async def inspect(kind: str, request: web.Request) -> web.Response:
    """One of a kind."""
    return _answer(_public(View(request.app[PLANE]).one(kind, request.match_info["name"])))


def _public(document: Object) -> Object:
    return {k: v for k, v in document.items() if k not in ("NodeName", "UpToDate")}


async def read_logs(kind: str, request: web.Request) -> web.StreamResponse:
    """What the tasks of a service, or one task, say."""
    plane = request.app[PLANE]
    view = View(plane)
    one = view.one(kind, request.match_info["name"])
    tasks = [one] if kind == "task" else [t for t in view.tasks() if t["ServiceID"] == one["ID"]]
    if not {"stdout", "stderr"} & request.query.keys():
        raise RefusedError("Bad parameters: you must choose at least one stream", 400)
    response = web.StreamResponse(headers={"Content-Type": "application/vnd.docker.multiplexed-stream"})
    await response.prepare(request)
    async for frame in logs.lines(plane, tasks, dict(request.query)):
        await response.write(frame)
    return response


async def create_service(request: web.Request) -> web.Response:
    """A service of `docker service create` or `docker stack deploy`."""
    networks = request.app[NETWORKS]
    registry_login.keep(request.headers)
    ident, warnings = await changes.create_service(request.app[PLANE], await _body(request), networks)
    return _answer({"ID": ident, "Warning": "; ".join(warnings)}, 201)


async def create_network(request: web.Request) -> web.Response:
    """An overlay is made with the first service on it; any other network is the server's own node's."""
    body = await _body(request)
    name = str(body.get("Name") or "")
    if name and body.get("Driver") == "overlay":
        ident = objects.identity("network", name)
        if len(request.app[NETWORKS]) >= MOST:
            raise RefusedError("too many networks are waiting for their services", 409)
        request.app[NETWORKS][ident] = name
        return _answer({"Id": ident, "Warning": ""}, 201)
    made = await _own(request.app[PLANE]).call("POST", request.path, json=body)
    return _answer(made, 201)


async def update_service(request: web.Request) -> web.Response:
    """Replicas, image, environment, a new round."""
    name, networks = request.match_info["name"], request.app[NETWORKS]
    registry_login.keep(request.headers)
    warnings = await changes.update_service(request.app[PLANE], name, await _body(request), networks)
    return _answer({"Warnings": warnings or None})


async def remove_service(request: web.Request) -> web.Response:
    """A service goes out of its stack."""
    await changes.remove_service(request.app[PLANE], request.match_info["name"])
    return web.Response()


async def update_node(request: web.Request) -> web.Response:
    """Labels and availability."""
    await changes.update_node(request.app[PLANE], request.match_info["name"], await _body(request))
    return web.Response()


async def create_content(kind: str, request: web.Request) -> web.Response:
    """A secret or config by hand."""
    return _answer({"ID": await changes.create_content(request.app[PLANE], kind, await _body(request))}, 201)


async def remove_content(kind: str, request: web.Request) -> web.Response:
    """A secret or config that was made by hand."""
    await changes.remove_content(request.app[PLANE], kind, request.match_info["name"])
    return web.Response(status=204)


async def inspect_swarm(request: web.Request) -> web.Response:
    """The cluster."""
    plane = request.app[PLANE]
    cluster = objects.swarm_of(plane.cluster.local, plane.state.revision, plane.inputs.vxlan_port)
    return _answer(cluster | {"JoinTokens": {"Worker": "", "Manager": ""}})


async def refused(request: web.Request) -> web.StreamResponse:
    """What Swarm does and the control plane does in another way. Raises RefusedError."""
    path = request.path.rstrip("/")
    instead = {
        "/swarm/init": "This node is already part of a swarm: pystack's cluster",
        "/swarm/join": "a host joins by `pystack node add USER@HOST`",
    }
    why = next((text for end, text in instead.items() if path.endswith(end)), "")
    raise RefusedError(why or f"{request.method} {quoted(path)}: pystack's control plane does not do that by Swarm's API", 501)


async def info(request: web.Request) -> web.StreamResponse:
    """What the server's node says of itself, as the manager of a swarm."""
    plane = request.app[PLANE]
    document = await _own(plane).call("GET", request.path)
    nodes = View(plane).nodes()
    own = next((n for n in nodes if n["Spec"]["Name"] == plane.cluster.local), nodes[0])
    managers = [n for n in nodes if "ManagerStatus" in n]
    document["Swarm"] = {
        "NodeID": own["ID"],
        "NodeAddr": own["Status"]["Addr"],
        "LocalNodeState": "active",
        "ControlAvailable": True,
        "Error": "",
        "RemoteManagers": [{"NodeID": n["ID"], "Addr": n["ManagerStatus"]["Addr"]} for n in managers],
        "Nodes": len(nodes),
        "Managers": len(managers),
        "Cluster": objects.swarm_of(plane.cluster.local, plane.state.revision, plane.inputs.vxlan_port),
    }
    return _answer(document)


@web.middleware
async def worded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as Docker's command reads them: it shows the message alone where the type is exactly this."""
    response = await errors(request, handler)
    if response.status >= 400 and not response.prepared:
        response.headers["Content-Type"] = "application/json"
    return response


def _own(plane: ControlPlane) -> Any:
    return plane.cluster.get(plane.cluster.local).client


async def passed_on(request: web.Request) -> web.StreamResponse:
    """What is not Swarm's is asked of the server's own node."""
    return await proxy.forward(request, _own(request.app[PLANE]), request.rel_url.raw_path)


def _routes() -> list[tuple[str, str, Handler]]:
    rows: list[tuple[str, str, Handler]] = [("GET", "/info", info), ("GET", "/swarm", inspect_swarm)]
    for plural, kind in KINDS.items():
        rows.append(("GET", f"/{plural}", partial(listing, kind)))
        rows.append(("GET", f"/{plural}/{{name}}", partial(inspect, kind)))
    rows += [("GET", f"/{kind}s/{{name}}/logs", partial(read_logs, kind)) for kind in ("service", "task")]
    rows.append(("POST", "/services/create", create_service))
    rows.append(("POST", "/networks/create", create_network))
    rows.append(("POST", "/services/{name}/update", update_service))
    rows.append(("DELETE", "/services/{name}", remove_service))
    rows.append(("POST", "/nodes/{name}/update", update_node))
    for kind in ("secret", "config"):
        rows.append(("POST", f"/{kind}s/create", partial(create_content, kind)))
        rows.append(("DELETE", f"/{kind}s/{{name}}", partial(remove_content, kind)))
    rows.append(("*", "/{part:swarm|services|nodes|tasks|secrets|configs}{rest:(/.*)?}", refused))
    rows.append(("*", "/{rest:.*}", passed_on))
    return rows


ROUTES = tuple(_routes())


def make_app(plane: ControlPlane) -> web.Application:
    """The application of the cluster's Docker socket, as long as this server leads."""
    app = web.Application(middlewares=[worded], client_max_size=LARGEST)
    app[PLANE] = plane
    app[NETWORKS] = {}
    versioned, plain = PREFIXES[1], PREFIXES[0]
    for prefix in (versioned, plain):
        for method, path, handler in ROUTES:
            app.router.add_route(method, prefix + path, handler)
    return app
