"""Changes a service without its file (`pystack set`): a revision as any other, until the file says something else."""

from __future__ import annotations

import msgspec

from agent.contract.container import Container
from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError
from orchestrator.server.events import Emit, Failure
from orchestrator.server.records import UpOptions
from orchestrator.server.rollouts.manager import RolloutManager
from orchestrator.server.state import ClusterState
from orchestrator.stackfile.model import Stack


class SetRequest(WireStruct, frozen=True, kw_only=True):
    """What is to be different: *image* "" and *command* None leave theirs; *env* sets variables, *unset* takes them away;
    *labels* are those of the containers. *options* has who and why."""

    image: str = ""
    command: tuple[str, ...] | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    unset: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: UpOptions = UpOptions()


async def set_service(
    state: ClusterState, rollouts: RolloutManager, stack: str, service: str, request: SetRequest, emit: Emit
) -> list[Failure]:
    """Bring *stack* up with *service* changed, with as many replicas as there are. Returns the tasks that failed.

    Raises RefusedError (404) where there is no such stack or service, (409) where nothing would be different."""
    return await rollouts.change(lambda: _with_change(state, stack, service, request), emit)


def _with_change(state: ClusterState, stack: str, service: str, request: SetRequest) -> tuple[Stack, UpOptions]:
    record = state.get_stack(stack).stack
    one = state.get_service(stack, service)
    changed = _changed(one.container, request)
    if changed == one.container:
        raise RefusedError(f"service {service} of stack {stack} is like that already", 409)
    services = tuple(
        msgspec.structs.replace(s, container=changed, build=None if request.image else s.build) if s.name == service else s
        for s in record.services
    )
    count = {s.name: 0 for s in services if s.mode == "replicated" and not s.schedule and not s.scale}
    for task in state.of_stack(stack).tasks:
        if task.service in count and task.planned and task.share < 0:
            count[task.service] += 1
    options = msgspec.structs.replace(request.options, scale=count, message=request.options.message or _words(service, request))
    return msgspec.structs.replace(record, services=services), options


def _changed(container: Container, request: SetRequest) -> Container:
    variables = {k: v for k, v in container.environment if k not in request.unset} | request.env
    labels = dict(container.labels) | request.labels
    return msgspec.structs.replace(
        container,
        image=request.image or container.image,
        command=container.command if request.command is None else request.command,
        environment=container.environment if variables == dict(container.environment) else tuple(variables.items()),
        labels=container.labels if labels == dict(container.labels) else tuple(sorted(labels.items())),
    )


def _words(service: str, request: SetRequest) -> str:
    parts = [f"image {request.image}"] if request.image else []
    parts += ["command"] if request.command is not None else []
    parts += [f"variable {name}" for name in (*request.env, *request.unset)]
    parts += [f"label {name}" for name in request.labels]
    return f"set {service}: {', '.join(parts)}"
