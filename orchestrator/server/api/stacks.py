"""Routes of stacks: up and down, plans and revisions, tasks and one-off containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import msgspec
from aiohttp import web

from agent.contract.container import Container
from agent.contract.task import Task
from agent.contract.wire import WireStruct
from orchestrator.planning.manifests import ingress_ports
from orchestrator.server import lifecycle, oneoff, revisions
from orchestrator.server.api.guard import sees, signed
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import ActRequest, SavedPlan, StackRecord, UpOptions
from orchestrator.stackfile.model import Stack


class UpRequest(WireStruct, frozen=True, kw_only=True):
    """A stack, and how to bring it up."""

    stack: Stack
    options: UpOptions = UpOptions()


class DownRequest(WireStruct, frozen=True, kw_only=True):
    """*volumes*: remove the stack's volumes too."""

    volumes: bool = False


class RemoveRequest(WireStruct, frozen=True, kw_only=True):
    """Names of tasks; those that run are stopped first."""

    tasks: tuple[str, ...]


class RollbackRequest(WireStruct, frozen=True, kw_only=True):
    """*revision* 0 is the one before the present."""

    revision: int = 0
    options: UpOptions = UpOptions()


class OneoffRequest(WireStruct, frozen=True, kw_only=True):
    """A one-off container *name* that runs like *service*."""

    name: str
    service: str
    container: Container


class StackRow(TypedDict):
    """One row of `pystack ls`."""

    stack: str
    revision: int
    running: int
    wanted: int
    nodes: int
    updated: str


class TaskRow(TypedDict):
    """One row of `pystack ps`."""

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
    oneoff: bool
    definition: str
    container_name: str


class RevisionRow(TypedDict):
    """One row of `pystack history`. *source* is REPOSITORY@COMMIT, "" where the stack came from no repository."""

    revision: int
    updated: str
    user: str
    message: str
    source: str
    services: list[str]
    current: bool


def stack_row(plane: ControlPlane, record: StackRecord, tasks: Sequence[Task]) -> StackRow:
    """The row of a stack, whose *tasks* are these."""
    states = [s.state for t in tasks if (s := plane.statuses.by_task.get(t.name))]
    return StackRow(
        stack=record.stack.name,
        revision=record.revision,
        running=states.count("running"),
        wanted=len(tasks) + len(plane.state.waiting_for_room(record.stack.name)),
        nodes=len({t.node for t in tasks}),
        updated=record.updated,
    )


async def list_stacks(request: web.Request) -> web.Response:
    """All stacks."""
    plane = request.app[PLANE]
    return json_response(
        [
            stack_row(plane, record, plane.state.of_stack(name).tasks)
            for name, record in sorted(plane.state.stacks.items())
            if sees(request, name)
        ]
    )


def task_row(plane: ControlPlane, task: Task) -> TaskRow:
    """The row of a task that is none of `run`."""
    status = plane.statuses.by_task.get(task.name)
    lost = plane.cluster.unreachable_reason(task.node)
    c = task.container
    ports = [f"{p.host_ip or '0.0.0.0'}:{p.published}->{p.target}/{p.protocol}" for p in (status.ports if status else ())]
    own = {p.published for p in (status.ports if status else ())}
    ports += [f"*:{p.published}->{p.target}/{p.protocol}" for p in ingress_ports(task) if status and p.published not in own]
    return TaskRow(
        task=task.name,
        service=task.service,
        index=task.index,
        stack=task.stack,
        node=task.node,
        id=status.container if status else "",
        image=c.image,
        state="unknown" if lost else status.state if status else "waiting" if task.desired == "waiting" else "pending",
        health=status.health if status else "",
        exit_code=status.exit_code if status else None,
        restarts=status.restarts if status else 0,
        ports=ports,
        addresses={a.network: a.ipv4 or a.ipv6 for a in c.attachments},
        created=status.created if status else "",
        started=status.started if status else "",
        error=lost or (status.reason if status else ""),
        oneoff=False,
        definition=task.definition,
        container_name=task.container_name or task.name,
    )


def pending_rows(plane: ControlPlane, stack: str) -> list[TaskRow]:
    """The rows of tasks that had to make room for others."""
    return [
        TaskRow(
            task=one.task,
            service=one.service,
            index=int(one.task.rpartition("-")[2]),
            stack=stack,
            node="",
            id="",
            image="",
            state="pending",
            health="",
            exit_code=None,
            restarts=0,
            ports=[],
            addresses={},
            created="",
            started="",
            error=f"preempted: it {one.reason}",
            oneoff=False,
            definition="",
            container_name=one.task,
        )
        for one in plane.state.waiting_for_room(stack).values()
    ]


async def get_stack(request: web.Request) -> web.Response:
    """A stack as it was last applied."""
    return json_response(request.app[PLANE].state.get_stack(request.match_info["stack"]))


async def list_tasks(request: web.Request) -> web.Response:
    """The tasks of a stack; with `oneoff=1` the containers of `run` too."""
    plane = request.app[PLANE]
    name = request.match_info["stack"]
    tasks = [t for t in plane.state.of_stack(name).tasks if t.desired != "oneoff"]
    rows = [task_row(plane, task) for task in sorted(tasks, key=lambda t: (t.service, t.index))]
    rows += pending_rows(plane, name)
    if request.query.get("oneoff", "") in ("1", "true"):
        rows += [_oneoff_row(t, seen) for t, seen in await oneoff.oneoff_states(plane.dispatcher, name)]
    return json_response(rows)


def _oneoff_row(task: Task, seen: dict[str, Any]) -> TaskRow:
    """A container of `run`, from what the Engine API says of it."""
    state, networks = seen["State"], seen["NetworkSettings"]["Networks"]
    ports = [
        f"{b['HostIp']}:{b['HostPort']}->{inside}"
        for inside, bound in (seen["NetworkSettings"]["Ports"] or {}).items()
        for b in bound or ()
        if ":" not in b["HostIp"]
    ]
    return TaskRow(
        task=task.name,
        service=task.service,
        index=1,
        stack=task.stack,
        node=task.node,
        id=seen["Id"],
        image=task.container.image,
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=None if state["Running"] else state["ExitCode"],
        restarts=0,
        ports=ports,
        addresses={name: n["IPAddress"] for name, n in networks.items()},
        created=seen["Created"],
        started=state["StartedAt"],
        error=state.get("Error", ""),
        oneoff=True,
        definition="",
        container_name=task.name,
    )


async def plan(request: web.Request) -> web.Response:
    """What `up` would do, and why. Changes nothing."""
    body = msgspec.json.decode(await request.read(), type=UpRequest)
    return json_response(await request.app[PLANE].planner.plan(body.stack, body.options))


async def up(request: web.Request) -> web.StreamResponse:
    """Make a stack true; a stream of events."""
    body = msgspec.json.decode(await request.read(), type=UpRequest)
    plane = request.app[PLANE]
    return await stream(request, lambda emit: plane.rollouts.up(body.stack, signed(request, body.options), emit))


async def apply(request: web.Request) -> web.StreamResponse:
    """Do exactly what a saved plan says, or refuse; a stream of events."""
    plane = request.app[PLANE]
    saved = msgspec.json.decode(await request.read(), type=SavedPlan)
    saved = msgspec.structs.replace(saved, options=signed(request, saved.options))
    return await stream(request, lambda emit: plane.rollouts.apply(saved, emit))


async def history(request: web.Request) -> web.Response:
    """The revisions of a stack."""
    plane, name = request.app[PLANE], request.match_info["stack"]
    present = plane.state.stacks[name].revision if name in plane.state.stacks else 0
    return json_response(
        [
            RevisionRow(
                revision=r.revision,
                updated=r.updated,
                user=r.user,
                message=r.message,
                source=r.source,
                services=[s.name for s in r.stack.services],
                current=r.revision == present,
            )
            for r in await plane.state.history(name)
        ]
    )


async def rollback(request: web.Request) -> web.StreamResponse:
    """Apply an earlier revision again; a stream of events."""
    body = msgspec.json.decode(await request.read() or b"{}", type=RollbackRequest)
    plane, name = request.app[PLANE], request.match_info["stack"]
    options = signed(request, body.options)
    return await stream(request, lambda emit: plane.rollouts.rollback(name, body.revision, options, emit))


async def plan_rollback(request: web.Request) -> web.Response:
    """What a rollback would do. Changes nothing."""
    body = msgspec.json.decode(await request.read() or b"{}", type=RollbackRequest)
    plane, name = request.app[PLANE], request.match_info["stack"]
    return json_response(await revisions.plan_rollback(plane.state, plane.planner, name, body.revision, body.options))


async def down(request: web.Request) -> web.StreamResponse:
    """Stop and remove a stack; a stream of events."""
    body = msgspec.json.decode(await request.read() or b"{}", type=DownRequest)
    dispatcher, name = request.app[PLANE].dispatcher, request.match_info["stack"]
    return await stream(request, lambda emit: lifecycle.down(dispatcher, name, volumes=body.volumes, emit=emit))


async def remove(request: web.Request) -> web.StreamResponse:
    """Remove tasks; the next `up` creates them again. A stream of events."""
    plane, name = request.app[PLANE], request.match_info["stack"]
    body = msgspec.json.decode(await request.read(), type=RemoveRequest)
    plane.state.get_stack(name)
    return await stream(request, lambda emit: lifecycle.remove(plane.dispatcher, name, body.tasks, emit))


async def act(request: web.Request) -> web.StreamResponse:
    """stop, start or restart; a stream of events."""
    body = msgspec.json.decode(await request.read() or b"{}", type=ActRequest)
    name, verb = request.match_info["stack"], request.match_info["verb"]
    request.app[PLANE].state.get_stack(name)
    dispatcher = request.app[PLANE].dispatcher
    return await stream(request, lambda emit: lifecycle.change_desired_state(dispatcher, name, verb, body, emit))


async def create_oneoff(request: web.Request) -> web.Response:
    """Give a one-off container a node and addresses; the answer is its Task."""
    body = msgspec.json.decode(await request.read(), type=OneoffRequest)
    plane, stack = request.app[PLANE], request.match_info["stack"]
    return json_response(
        await oneoff.create_oneoff(plane.dispatcher, plane.images, plane.inputs, stack, body.service, body.name, body.container)
    )


async def delete_oneoff(request: web.Request) -> web.Response:
    """Take back what a one-off container had."""
    await oneoff.delete_oneoff(request.app[PLANE].dispatcher, request.match_info["stack"], request.match_info["oneoff"])
    return web.Response(status=204)


async def why(request: web.Request) -> web.Response:
    """Every node's verdict on a task, or on one more task of a service."""
    plane, name, service = request.app[PLANE], request.match_info["stack"], request.match_info["service"]
    found = await plane.planner.why(name, service, request.query.get("task", ""))
    memory = plane.autoscaler.memories.get((name, service))
    return json_response(msgspec.to_builtins(msgspec.structs.replace(found, scaling=memory.reason if memory else "")))
