"""Routes of rollouts."""

from __future__ import annotations

from typing import TypedDict

import msgspec
from aiohttp import web

from agent.contract.times import timestamp_if_set
from orchestrator.server.api.guard import signed
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.api.stream import stream
from orchestrator.server.events import Failure
from orchestrator.server.plane import ControlPlane
from orchestrator.server.rollouts.records import RolloutRecord
from orchestrator.server.service_set import SetRequest, set_service


class RolloutRow(TypedDict):
    """`pystack rollout status`. *verb* is what began it: `up`, `apply`, `sync` of a repository, `redeploy` by the cluster.
    *before* is the revision that it began from, *revision* the present one. *services* has, of each service with replicas, how
    many of its tasks have the definition that is wanted."""

    stack: str
    verb: str
    state: str
    phase: str
    before: int
    revision: int
    user: str
    message: str
    begun: str
    ended: str
    reason: str
    services: dict[str, tuple[int, int]]
    failures: list[Failure]


def rollout_row(plane: ControlPlane, record: RolloutRecord) -> RolloutRow:
    """The row of a rollout."""
    name = record.stack.name
    present = plane.state.stacks.get(name)
    wanted = {s.name: s.definition for s in record.stack.services}
    services: dict[str, tuple[int, int]] = {}
    for task in plane.state.of_stack(name).tasks:
        if task.planned and task.service in wanted:
            done, total = services.get(task.service, (0, 0))
            services[task.service] = done + (task.definition == wanted[task.service]), total + 1
    return RolloutRow(
        stack=name,
        verb=record.verb,
        state=record.state,
        phase=record.phase,
        before=record.before,
        revision=present.revision if present else 0,
        user=record.options.user,
        message=record.options.message,
        begun=timestamp_if_set(record.begun, "milliseconds"),
        ended=timestamp_if_set(record.ended, "milliseconds"),
        reason=record.reason,
        services=services,
        failures=list(record.failures),
    )


async def get_rollout(request: web.Request) -> web.Response:
    """The rollout of a stack that is going on, or the last one."""
    plane = request.app[PLANE]
    return json_response(rollout_row(plane, plane.rollouts.get(request.match_info["stack"])))


async def watch_rollout(request: web.Request) -> web.StreamResponse:
    """What happens in a rollout from now to its end; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["stack"]
    plane.rollouts.get(name)
    return await stream(request, lambda emit: plane.rollouts.watch(name, emit))


async def pause_rollout(request: web.Request) -> web.Response:
    """Let a rollout stop when the tasks are up that are being exchanged."""
    plane = request.app[PLANE]
    return json_response(rollout_row(plane, await plane.rollouts.pause(request.match_info["stack"])))


async def resume_rollout(request: web.Request) -> web.StreamResponse:
    """Go on with a rollout that was paused, failed or was given up; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["stack"]
    return await stream(request, lambda emit: plane.rollouts.resume(name, emit))


async def promote_rollout(request: web.Request) -> web.Response:
    """Go on to the next step of a rollout now."""
    plane = request.app[PLANE]
    return json_response(rollout_row(plane, plane.rollouts.promote(request.match_info["stack"])))


async def set_a_service(request: web.Request) -> web.StreamResponse:
    """Change a service without its file; a stream of events."""
    plane, stack, service = request.app[PLANE], request.match_info["stack"], request.match_info["service"]
    body = msgspec.json.decode(await request.read(), type=SetRequest)
    body = msgspec.structs.replace(body, options=signed(request, body.options))
    plane.state.get_service(stack, service)
    return await stream(request, lambda emit: set_service(plane.state, plane.rollouts, stack, service, body, emit))


async def abort_rollout(request: web.Request) -> web.StreamResponse:
    """Give a rollout up and go back to the revision before it; a stream of events."""
    plane, name = request.app[PLANE], request.match_info["stack"]
    return await stream(request, lambda emit: plane.rollouts.abort(name, emit))
