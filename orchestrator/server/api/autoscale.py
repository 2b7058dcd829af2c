"""Routes of services that are scaled for what they use."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from orchestrator.planning.autoscale import ScaleMemory
from orchestrator.server.api.guard import sees
from orchestrator.server.api.responses import PLANE, json_response
from orchestrator.server.plane import ControlPlane
from orchestrator.stackfile.model import Service


class AutoscaleRow(TypedDict):
    """One row of `pystack autoscale ls`. *reason* explains the last decision."""

    stack: str
    service: str
    replicas: int
    min: int
    max: int
    target: str
    paused: bool
    reason: str


def _row(plane: ControlPlane, stack: str, service: Service) -> AutoscaleRow:
    assert service.scale
    memory = plane.autoscaler.memories.get((stack, service.name), ScaleMemory())
    scale = service.scale
    targets = [f"{name} {value:g}%" for name, value in (("cpu", scale.cpu), ("memory", scale.memory)) if value]
    targets += [f"rps {scale.rps:g}"] if scale.rps else []
    targets += [f"query {scale.query.value:g}"] if scale.query else []
    return AutoscaleRow(
        stack=stack,
        service=service.name,
        replicas=sum(t.service == service.name and t.planned for t in plane.state.of_stack(stack).tasks),
        min=service.scale.least,
        max=service.scale.most,
        target=", ".join(targets),
        paused=memory.paused,
        reason=memory.reason,
    )


async def list_autoscaled(request: web.Request) -> web.Response:
    """All services with `x-scale`; with `stack=` those of one stack."""
    plane, only = request.app[PLANE], request.query.get("stack", "")
    return json_response(
        [
            _row(plane, name, service)
            for name, record in sorted(plane.state.stacks.items())
            for service in record.stack.services
            if service.scale and only in ("", name) and sees(request, name)
        ]
    )


async def switch_autoscale(request: web.Request) -> web.Response:
    """Leave the number of a service's replicas as it is, or end that."""
    plane, stack, name = request.app[PLANE], request.match_info["stack"], request.match_info["service"]
    paused = request.match_info["verb"] == "pause"
    await plane.autoscaler.pause(stack, name, paused, "paused by hand" if paused else "")
    return json_response(_row(plane, stack, plane.state.get_service(stack, name)))
