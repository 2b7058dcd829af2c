"""The control plane's REST API, version 1. Every route is a row of ROUTES, from which the OpenAPI document is made."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from agent.errors import not_twice, shown, told
from agent.manifest import Container, Record, Task
from orchestrator import STALE, __version__
from orchestrator.errors import PystackError, RefusedError
from orchestrator.gitops import api as repositories
from orchestrator.gitops.gitops import Gitops
from orchestrator.placement.explain import Why
from orchestrator.placement.rebalance import Move
from orchestrator.planning.manifests import ingress_ports
from orchestrator.planning.state import Plan
from orchestrator.server import guests, lifecycle, placing, proxy, revisions
from orchestrator.server.cluster import NodeChange, NodeWish
from orchestrator.server.contents import Named
from orchestrator.server.controller import Controller, events
from orchestrator.server.doctor import Check, diagnose
from orchestrator.server.moving import move_volume
from orchestrator.server.records import SavedPlan, UpOptions
from orchestrator.stackfile.model import Stack
from orchestrator.store.transfer import dump

CONTROLLER = web.AppKey("controller", Controller)
STOP = web.AppKey("stop", asyncio.Event)
log = logging.getLogger(__name__)


class UpRequest(Record, frozen=True, kw_only=True):
    stack: Stack
    options: UpOptions = UpOptions()


class DownRequest(Record, frozen=True, kw_only=True):
    volumes: bool = False


class ActRequest(Record, frozen=True, kw_only=True):
    """*timeout_s* is how long containers may take to end, instead of their own stop_grace_period."""

    services: tuple[str, ...] = ()
    timeout_s: float | None = None


class RemoveRequest(Record, frozen=True, kw_only=True):
    """Names of tasks; those that run are stopped first."""

    tasks: tuple[str, ...]


class Version(Record, frozen=True, kw_only=True):
    version: str
    api: str
    node: str
    pid: int


class StackRow(Record, frozen=True, kw_only=True):
    """One row of `pystack ls`."""

    stack: str
    revision: int
    running: int
    wanted: int
    nodes: int
    updated: str


class TaskRow(Record, frozen=True, kw_only=True):
    """One row of `pystack ps`; every key is always there."""

    task: str
    service: str
    index: int
    stack: str
    node: str
    id: str
    image: str
    state: str
    health: str
    exit_code: int | None
    restarts: int
    ports: list[str]
    addresses: dict[str, str]
    created: str
    started: str
    error: str


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


Work = Callable[[Callable[[dict[str, Any]], None]], Awaitable[Any]]


async def _stream(request: web.Request, work: Work) -> web.StreamResponse:
    """One JSON object a line while *work* goes on; the last one is {"event": "done", "failures": […]} or an error.

    A client that goes away ends the work where it is: what was written stays, and the next `up` goes on from there."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)

    async def run() -> None:
        try:
            failures = await work(queue.put_nowait)
            queue.put_nowait({"event": "done", "failures": msgspec.to_builtins(failures or [])})
        except PystackError as error:
            queue.put_nowait({"event": "error", "message": str(error)})
        except ExceptionGroup as group:
            queue.put_nowait({"event": "error", "message": "; ".join(str(e) for e in group.exceptions)})
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            queue.put_nowait({"event": "error", "message": told(error)})

    task = asyncio.create_task(run())
    try:
        while True:
            lines = [await queue.get()]
            while not queue.empty():
                lines.append(queue.get_nowait())
            await response.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            if lines[-1]["event"] in ("done", "error"):
                return response
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def version(request: web.Request) -> web.Response:
    """Who answers here."""
    import os

    return _json(Version(version=__version__, api="v1", node=request.app[CONTROLLER].node, pid=os.getpid()))


async def openapi(request: web.Request) -> web.Response:
    """This document."""
    from orchestrator.server.openapi import document

    del request
    return _json(document(ROUTES))


async def shutdown(request: web.Request) -> web.Response:
    """End the server; containers run on."""
    request.app[STOP].set()
    return web.Response(status=202)


async def list_stacks(request: web.Request) -> web.Response:
    """All stacks."""
    controller = request.app[CONTROLLER]
    rows = []
    for name, record in sorted(controller.stacks.items()):
        tasks = controller.state(name).tasks
        states = [s.state for t in tasks if (s := controller.statuses.by_task.get(t.name))]
        rows.append(StackRow(
            stack=name, revision=record.revision, running=states.count("running"), wanted=len(tasks),
            nodes=len({t.node for t in tasks}), updated=record.updated,
        ))
    return _json([_row(r) for r in rows])


def _row(row: Record) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


async def get_stack(request: web.Request) -> web.Response:
    """A stack as it was last applied."""
    return _json(request.app[CONTROLLER].known(request.match_info["stack"]))


async def list_tasks(request: web.Request) -> web.Response:
    """The tasks of a stack."""
    controller = request.app[CONTROLLER]
    name = request.match_info["stack"]
    rows = []
    tasks = [t for t in controller.state(name).tasks if t.desired != "guest"]
    for task in sorted(tasks, key=lambda t: (t.service, t.index)):
        status = controller.statuses.by_task.get(task.name)
        lost = controller.cluster.silent(task.node)
        c = task.container
        ports = [
            f"{p.host_ip or '0.0.0.0'}:{p.published}->{p.target}/{p.protocol}" for p in (status.ports if status else ())
        ]
        own = {p.published for p in (status.ports if status else ())}
        ports += [f"*:{p.published}->{p.target}/{p.protocol}" for p in ingress_ports(task) if status and p.published not in own]
        rows.append(_row(TaskRow(
            task=task.name, service=task.service, index=task.index, stack=name, node=task.node,
            id=status.container if status else "", image=c.image,
            state="unknown" if lost else status.state if status else "waiting" if task.desired == "hold" else "pending",
            health=status.health if status else "", exit_code=status.exit_code if status else None,
            restarts=status.restarts if status else 0, ports=ports,
            addresses={a.network: a.ipv4 or a.ipv6 for a in c.attachments},
            created=status.created if status else "", started=status.started if status else "",
            error=lost or (status.error if status else ""),
        )))
    return _json(rows)


async def plan(request: web.Request) -> web.Response:
    """What `up` would do, and why. Changes nothing."""
    wish = msgspec.json.decode(await request.read(), type=UpRequest)
    return _json(await request.app[CONTROLLER].plan(wish.stack, wish.options))


async def up(request: web.Request) -> web.StreamResponse:
    """Make a stack true; a stream of events."""
    wish = msgspec.json.decode(await request.read(), type=UpRequest)
    controller = request.app[CONTROLLER]
    return await _stream(request, lambda tell: controller.up(wish.stack, wish.options, tell))


async def apply(request: web.Request) -> web.StreamResponse:
    """Do exactly what a saved plan says, or refuse; a stream of events."""
    saved = msgspec.json.decode(await request.read(), type=SavedPlan)
    return await _stream(request, lambda tell: revisions.apply(request.app[CONTROLLER], saved, tell))


class RollbackRequest(Record, frozen=True, kw_only=True):
    """*revision* 0 is the one before the present."""

    revision: int = 0
    options: UpOptions = UpOptions()


class RevisionRow(Record, frozen=True, kw_only=True):
    """One row of `pystack history`."""

    revision: int
    updated: str
    user: str
    message: str
    services: list[str]
    current: bool


async def history(request: web.Request) -> web.Response:
    """The revisions of a stack."""
    controller, name = request.app[CONTROLLER], request.match_info["stack"]
    present = controller.stacks[name].revision if name in controller.stacks else 0
    return _json([
        _row(RevisionRow(
            revision=r.revision, updated=r.updated, user=r.user, message=r.message,
            services=[s.name for s in r.stack.services], current=r.revision == present,
        ))
        for r in await revisions.history(controller, name)
    ])


async def rollback(request: web.Request) -> web.StreamResponse:
    """Apply an earlier revision again; a stream of events."""
    wish = msgspec.json.decode(await request.read() or b"{}", type=RollbackRequest)
    controller, name = request.app[CONTROLLER], request.match_info["stack"]
    return await _stream(request, lambda tell: revisions.rollback(controller, name, wish.revision, wish.options, tell))


async def plan_rollback(request: web.Request) -> web.Response:
    """What a rollback would do. Changes nothing."""
    wish = msgspec.json.decode(await request.read() or b"{}", type=RollbackRequest)
    controller, name = request.app[CONTROLLER], request.match_info["stack"]
    return _json(await revisions.plan_rollback(controller, name, wish.revision, wish.options))


async def down(request: web.Request) -> web.StreamResponse:
    """Stop and remove a stack; a stream of events."""
    wish = msgspec.json.decode(await request.read() or b"{}", type=DownRequest)
    name = request.match_info["stack"]
    return await _stream(request, lambda tell: lifecycle.down(request.app[CONTROLLER], name, volumes=wish.volumes, tell=tell))


async def remove(request: web.Request) -> web.StreamResponse:
    """Remove tasks; the next `up` makes them anew."""
    controller, name = request.app[CONTROLLER], request.match_info["stack"]
    wish = msgspec.json.decode(await request.read(), type=RemoveRequest)
    controller.known(name)
    return await _stream(request, lambda tell: lifecycle.remove(controller, name, wish.tasks, tell))


class GuestRequest(Record, frozen=True, kw_only=True):
    """A container that is run by hand as *service* would be, under *name*."""

    name: str
    service: str
    container: Container


async def invite(request: web.Request) -> web.Response:
    """A node and addresses for a container that is run by hand; the answer is its Task."""
    wish = msgspec.json.decode(await request.read(), type=GuestRequest)
    stack = request.match_info["stack"]
    return _json(await guests.invite(request.app[CONTROLLER], stack, wish.service, wish.name, wish.container))


async def part(request: web.Request) -> web.Response:
    """Take back what a container that was run by hand had."""
    await guests.part(request.app[CONTROLLER], request.match_info["stack"], request.match_info["guest"])
    return web.Response(status=204)


async def act(request: web.Request) -> web.StreamResponse:
    """stop, start or restart; a stream of events."""
    wish = msgspec.json.decode(await request.read() or b"{}", type=ActRequest)
    name, verb = request.match_info["stack"], request.match_info["verb"]
    request.app[CONTROLLER].known(name)
    return await _stream(request, lambda tell: lifecycle.act(
        request.app[CONTROLLER], name, verb, wish.services, tell, timeout_s=wish.timeout_s))


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Changes of tasks' statuses, one JSON object a line."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for event in events(request.app[CONTROLLER]):
        await response.write(json.dumps(event).encode() + b"\n")
    return response


async def engine(request: web.Request) -> web.StreamResponse:
    """A node's Docker Engine API."""
    controller = request.app[CONTROLLER]
    member = controller.cluster.get(request.match_info["node"])
    path = request.rel_url.raw_path.split("/engine", 1)[1]
    return await proxy.forward(request, member.courier.socket, path)


class NodeRow(Record, frozen=True, kw_only=True):
    """One row of `pystack node ls`. *capacity* and *reserved* count cores and bytes; *mtu* is what paths to it carry, *devices*
    what CDI names there."""

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
    courier: str
    error: str


def _node_row(controller: Controller, name: str) -> dict[str, Any]:
    member = controller.cluster.get(name)
    node = member.node
    tasks = [t for t in controller.tasks.values() if t.node == node.name]
    asked = controller.reserved(tasks)
    return _row(NodeRow(
        name=node.name, id=node.id, address=node.target or "local", underlay=node.underlay, mtu=node.mtu,
        state="ready" if member.ready else "down", availability=node.availability, labels=dict(node.labels),
        devices=list(node.facts.devices),
        taints=list(node.taints),
        capacity={"cpus": node.facts.cpus, "memory": node.facts.memory}, reserved={"cpus": asked[0], "memory": asked[1]},
        tasks=len(tasks), version=node.facts.version, platform=f"{node.facts.os}/{node.facts.arch}", error=member.problem,
        courier=node.courier,
    ))


async def list_nodes(request: web.Request) -> web.Response:
    """The nodes of the cluster."""
    controller = request.app[CONTROLLER]
    return _json([_node_row(controller, name) for name in sorted(controller.cluster.members)])


async def get_node(request: web.Request) -> web.Response:
    """One node."""
    return _json(_node_row(request.app[CONTROLLER], request.match_info["node"]))


async def add_node(request: web.Request) -> web.Response:
    """Bring a host into the cluster: its agent is installed and started over SSH."""
    controller = request.app[CONTROLLER]
    node = await controller.cluster.add(msgspec.json.decode(await request.read(), type=NodeWish))
    return _json(_node_row(controller, node.name))


async def change_node(request: web.Request) -> web.Response:
    """Set or remove labels, or change what the node takes."""
    controller = request.app[CONTROLLER]
    wish = msgspec.json.decode(await request.read(), type=NodeChange)
    node = await controller.cluster.change(request.match_info["node"], wish)
    return _json(_node_row(controller, node.name))


async def drain_node(request: web.Request) -> web.StreamResponse:
    """Take a node out of use and move its tasks to others; a stream of events."""
    controller, name = request.app[CONTROLLER], request.match_info["node"]
    controller.cluster.get(name)
    return await _stream(request, lambda tell: placing.drain(controller, name, tell))


async def taint_node(request: web.Request) -> web.StreamResponse:
    """Set or remove taints; tasks that do not tolerate a NoExecute one move. A stream of events."""
    controller, name = request.app[CONTROLLER], request.match_info["node"]
    wish = msgspec.json.decode(await request.read(), type=NodeChange)
    controller.cluster.get(name)
    return await _stream(request, lambda tell: placing.taint(controller, name, wish, tell))


async def remove_node(request: web.Request) -> web.Response:
    """Let a node go."""
    controller, name = request.app[CONTROLLER], request.match_info["node"]
    node = controller.cluster.get(name).node
    tasks = sum(t.node == node.name for t in controller.tasks.values())
    await controller.cluster.remove(name, tasks, force=request.query.get("force") == "1")
    return web.Response(status=204)


async def proposed_moves(request: web.Request) -> web.Response:
    """Moves that would even out the cluster. Changes nothing."""
    limit = int(request.query.get("limit", "10"))
    return _json([_row(m) for m in placing.proposed_moves(request.app[CONTROLLER], limit)])


async def rebalance(request: web.Request) -> web.StreamResponse:
    """Make those moves; a stream of events."""
    limit = int(request.query.get("limit", "10"))
    return await _stream(request, lambda tell: placing.rebalance(request.app[CONTROLLER], limit, tell))


async def dump_store(request: web.Request) -> web.StreamResponse:
    """All that the store holds, as of one revision: a backup, for `pystack store restore`."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for line in await dump(request.app[CONTROLLER].store):
        await response.write(line)
    return response


class MoveWish(Record, frozen=True, kw_only=True):
    node: str


async def move_a_volume(request: web.Request) -> web.StreamResponse:
    """Take a volume and its users to another node; a stream of events."""
    controller, name = request.app[CONTROLLER], request.match_info["volume"]
    wish = msgspec.json.decode(await request.read(), type=MoveWish)
    return await _stream(request, lambda tell: move_volume(controller, name, wish.node, tell))


class ContentRow(Record, frozen=True, kw_only=True):
    """A config or secret that was made by hand, and the stacks that use it; never what a secret contains."""

    name: str
    digest: str
    created: str
    updated: str
    stacks: list[str]


def _content_row(controller: Controller, one: Named) -> ContentRow:
    return ContentRow(name=one.name, digest=one.digest, created=one.created, updated=one.updated,
                      stacks=sorted(_users_of(controller, one.kind, one.name)))


def _users_of(controller: Controller, kind: str, name: str) -> set[str]:
    return {
        r.stack.name for r in controller.stacks.values() for c in r.stack.contents
        if c.external and (c.kind, c.name) == (kind, name)
    }


async def list_contents(request: web.Request) -> web.Response:
    """Configs, or secrets, that were made by hand."""
    controller, kind = request.app[CONTROLLER], request.match_info["kind"]
    found = [one for _, one in sorted(controller.contents.named.items()) if one.kind == kind]
    return _json([_row(_content_row(controller, one)) for one in found])


async def get_contents(request: web.Request) -> web.Response:
    """One of them."""
    controller = request.app[CONTROLLER]
    one = controller.contents.find(request.match_info["kind"], request.match_info["name"])
    return _json(_row(_content_row(controller, one)))


async def put_contents(request: web.Request) -> web.Response:
    """Make one of the request's body."""
    controller = request.app[CONTROLLER]
    made = await controller.contents.create(
        request.match_info["kind"], request.match_info["name"], await request.read(),
        replace=request.query.get("replace") == "1",
    )
    return _json(_row(_content_row(controller, made)))


async def remove_contents(request: web.Request) -> web.Response:
    """Remove one that no stack uses."""
    controller, kind, name = request.app[CONTROLLER], request.match_info["kind"], request.match_info["name"]
    await controller.contents.remove(kind, name, _users_of(controller, kind, name))
    return web.Response(status=204)


async def doctor(request: web.Request) -> web.Response:
    """Every layer of the networks on every node; with *repair*, after what can be put right was."""
    controller = request.app[CONTROLLER]
    checks = await diagnose(controller.cluster, controller.networks, repair=request.query.get("repair") == "1")
    return _json([_row(c) for c in checks])


async def why(request: web.Request) -> web.Response:
    """Every node's verdict on a task, or on one more task of a service."""
    name, service = request.match_info["stack"], request.match_info["service"]
    return _json(msgspec.to_builtins(request.app[CONTROLLER].why(name, service, request.query.get("task", ""))))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROUTES: tuple[tuple[str, str, Handler, type | None, Any], ...] = (
    ("GET", "/v1/version", version, None, Version),
    ("GET", "/v1/openapi.json", openapi, None, None),
    ("POST", "/v1/shutdown", shutdown, None, None),
    ("GET", "/v1/stacks", list_stacks, None, list[StackRow]),
    ("GET", "/v1/stacks/{stack}", get_stack, None, None),
    ("GET", "/v1/stacks/{stack}/tasks", list_tasks, None, list[TaskRow]),
    ("GET", "/v1/doctor", doctor, None, list[Check]),
    ("GET", "/v1/store", dump_store, None, None),
    ("POST", "/v1/volumes/{volume}/move", move_a_volume, MoveWish, None),
    ("GET", "/v1/{kind:config|secret}s", list_contents, None, list[ContentRow]),
    ("GET", "/v1/{kind:config|secret}s/{name}", get_contents, None, ContentRow),
    ("PUT", "/v1/{kind:config|secret}s/{name}", put_contents, None, ContentRow),
    ("DELETE", "/v1/{kind:config|secret}s/{name}", remove_contents, None, None),
    ("POST", "/v1/plan", plan, UpRequest, Plan),
    ("POST", "/v1/up", up, UpRequest, None),
    ("POST", "/v1/apply", apply, SavedPlan, None),
    ("GET", "/v1/stacks/{stack}/history", history, None, list[RevisionRow]),
    ("POST", "/v1/stacks/{stack}/plan", plan_rollback, RollbackRequest, Plan),
    ("POST", "/v1/stacks/{stack}/rollback", rollback, RollbackRequest, None),
    ("POST", "/v1/stacks/{stack}/down", down, DownRequest, None),
    ("POST", "/v1/stacks/{stack}/{verb:stop|start|restart}", act, ActRequest, None),
    ("POST", "/v1/stacks/{stack}/rm", remove, RemoveRequest, None),
    ("POST", "/v1/stacks/{stack}/guests", invite, GuestRequest, Task),
    ("DELETE", "/v1/stacks/{stack}/guests/{guest}", part, None, None),
    ("GET", "/v1/stacks/{stack}/services/{service}/why", why, None, Why),
    ("GET", "/v1/events", stream_events, None, None),
    ("GET", "/v1/rebalance", proposed_moves, None, list[Move]),
    ("POST", "/v1/rebalance", rebalance, None, None),
    ("GET", "/v1/nodes", list_nodes, None, list[NodeRow]),
    ("POST", "/v1/nodes", add_node, NodeWish, NodeRow),
    ("GET", "/v1/nodes/{node}", get_node, None, NodeRow),
    ("PATCH", "/v1/nodes/{node}", change_node, NodeChange, NodeRow),
    ("DELETE", "/v1/nodes/{node}", remove_node, None, None),
    ("POST", "/v1/nodes/{node}/drain", drain_node, None, None),
    ("POST", "/v1/nodes/{node}/taint", taint_node, NodeChange, None),
    *repositories.ROUTES,
    ("*", "/v1/nodes/{node}/engine/{path:.*}", engine, None, None),
)


LONGEST = 64 << 10
"""Characters of a message: a plan that cannot be has reasons of every node."""


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as {"message": …} with Docker's status codes."""
    try:
        return await handler(request)
    except RefusedError as error:
        return web.json_response({"message": shown(str(error), LONGEST)}, status=error.status)
    except PystackError as error:
        return web.json_response({"message": shown(str(error), LONGEST)}, status=409)
    except (msgspec.MsgspecError, ValueError) as error:
        return web.json_response({"message": shown(f"malformed request: {error}", LONGEST)}, status=400)
    except RecursionError:
        return web.json_response({"message": "malformed request: it is nested too deeply"}, status=400)
    except web.RequestPayloadError as error:
        return web.json_response({"message": shown(f"malformed request: {error}", LONGEST)}, status=400)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason}, status=error.status)
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return web.json_response({"message": shown(told(error), LONGEST)}, status=500)


OWN_ENGINE = "/v1/nodes/local/engine"
"""The path of the server's own node."""


def make(controller: Controller, gitops: Gitops, stop: asyncio.Event) -> web.Application:
    app = web.Application(middlewares=[errors], client_max_size=64 << 20)
    app.on_response_prepare.append(not_twice)
    app[CONTROLLER] = controller
    app[repositories.GITOPS] = gitops
    app[STOP] = stop
    for method, path, handler, _, _ in ROUTES:
        app.router.add_route(method, path, handler)
    return app


class Waiting:
    """A server that does not lead: *reason* is why, *away* says that nobody can lead, as the store does not answer. *last* is
    what this server knew when it led last, if it did, *since* when that was, in monotonic seconds."""

    def __init__(self) -> None:
        self.reason = "this server is not ready yet"
        self.away = False
        self.last: Controller | None = None
        self.repositories: Gitops | None = None
        self.since = 0.0


REMEMBERED = frozenset({
    "/v1/version", "/v1/stacks", "/v1/stacks/{stack}", "/v1/stacks/{stack}/tasks", "/v1/nodes", "/v1/nodes/{node}",
    "/v1/gitops", "/v1/gitops/{name}", "/v1/{kind:config|secret}s", "/v1/{kind:config|secret}s/{name}",
    "/v1/stacks/{stack}/services/{service}/why",
})
"""What can be read from memory alone."""


def waiting(state: Waiting) -> web.Application:
    """The answers of a server that does not lead: 503 with the reason; while the store is away what it knew, and how old that
    is."""

    async def refuse(request: web.Request) -> web.Response:
        del request
        return web.json_response({"message": state.reason}, status=503)

    def remembered(handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if not state.away or state.last is None:
                return await refuse(request)
            response = await handler(request)
            response.headers[STALE] = f"{time.monotonic() - state.since:.0f} {state.reason.partition(':')[0]}"
            return response

        return answer

    app = web.Application(middlewares=[errors])
    if state.last and state.repositories:
        app[CONTROLLER] = state.last
        app[repositories.GITOPS] = state.repositories
        for method, path, handler, _, _ in ROUTES:
            if method == "GET" and path in REMEMBERED:
                app.router.add_route(method, path, remembered(handler))
    app.router.add_route("*", "/{path:.*}", refuse)
    return app
