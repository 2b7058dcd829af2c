"""One-off containers (`pystack run`): the cluster gives them a node and addresses on the stack's networks.

Compose's term: the label `com.docker.compose.oneoff`. The client makes the container itself, through the node's Engine API.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.contract.container import Container
from agent.contract.task import Task
from orchestrator.errors import RefusedError, UnreachableError
from orchestrator.placement.arrange import arrange_oneoff
from orchestrator.planning.expand import address_oneoff
from orchestrator.planning.swarm_templates import oneoff_with_templates
from orchestrator.server.contents import files_with_digests
from orchestrator.server.dispatcher import Dispatcher
from orchestrator.server.events import Emit, StepEvent, ignore
from orchestrator.server.images import Images
from orchestrator.server.inputs import Inputs
from orchestrator.server.preemption import evict
from orchestrator.server.prepare import prepare_nodes
from orchestrator.server.trust import TrustCheck


async def create_oneoff(
    dispatcher: Dispatcher, images: Images, inputs: Inputs, stack: str, service: str, name: str, container: Container
) -> Task:
    """Register the one-off container *name*, which runs like *service* of *stack*. Returns its task, with node and addresses.

    `delete_oneoff` takes it back. Raises RefusedError, and ImpossibleError if no node can take it."""
    state = dispatcher.state
    async with state.lock(f"stack {stack}").hold("run"):
        one = state.get_service(stack, service)
        record = state.stacks[stack].stack
        if name in state.tasks:
            raise RefusedError(f"the name {name} is in use: choose another with --name", 409)
        ids = await images.ids(record)
        container = msgspec.structs.replace(
            container, image_id=ids.get(container.image, ""), files=files_with_digests(container.files, record.contents)
        )
        asked = msgspec.structs.replace(one, container=container)
        if problems := await TrustCheck(dispatcher.cluster, images).problems(record, asked):
            raise RefusedError("\n".join(problems), 403)
        draft = Task(name=name, stack=stack, service=service, container=container, desired="oneoff", where=one.where)
        inputs.quotas.require_more(record, service)
        await dispatcher.cluster.refresh_info(problems_only=True)
        placement, current = inputs.placement(stack), state.of_stack(stack)
        placed, evicted = arrange_oneoff(record, draft, current.tasks, placement)
        task = oneoff_with_templates(record, one, placed, placement)
        task, networks = address_oneoff(task, current, list(state.networks.values()), placement)
        with state.expected(record, [task]):  # the room is its own from here on
            if failures := await prepare_nodes(dispatcher.cluster, images, [task], networks, ignore):
                raise RefusedError(failures[0].reason, 409)
            await evict(dispatcher, stack, evicted)
            await state.put(tasks=[task], networks=networks)
        await dispatcher.cluster.deliver()
        return task


async def delete_oneoff(dispatcher: Dispatcher, stack: str, name: str) -> None:
    """Take back what `create_oneoff` gave. Does nothing if there is no such container."""
    async with dispatcher.state.lock(f"stack {stack}").hold("run"):
        task = dispatcher.state.tasks.get(name)
        if task and task.desired == "oneoff":
            await dispatcher.remove_tasks([name])


async def oneoff_states(dispatcher: Dispatcher, stack: str) -> list[tuple[Task, dict[str, Any]]]:
    """The one-off containers of *stack* that there are, with what their nodes say of each in the Engine API's words."""
    out = []
    for task in dispatcher.state.of_stack(stack).tasks:
        member = dispatcher.cluster.members.get(task.node)
        if task.desired == "oneoff" and member and member.ready:
            with contextlib.suppress(RefusedError, UnreachableError):
                out.append((task, await member.client.call("GET", f"/containers/{task.name}/json")))
    return out


async def ended_oneoffs(dispatcher: Dispatcher, stack: str) -> list[Task]:
    """Those of them that do not run: orphans, as Docker Compose has it."""
    return [task for task, seen in await oneoff_states(dispatcher, stack) if seen["State"]["Status"] in ("exited", "dead")]


async def remove_oneoffs(dispatcher: Dispatcher, tasks: Sequence[Task], emit: Emit) -> None:
    """Remove the one-off containers *tasks* from their nodes, and take back what they had."""
    for task in tasks:
        emit(StepEvent(action="remove", kind="task", name=task.name, node=task.node, reason="down"))
        member = dispatcher.cluster.members.get(task.node)
        if member and member.ready:
            with contextlib.suppress(RefusedError, UnreachableError):
                await member.client.call("DELETE", f"/containers/{task.name}", params={"force": "1", "v": "1"})
    if tasks:
        await dispatcher.remove_tasks([t.name for t in tasks])
