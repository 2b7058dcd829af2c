"""What Swarm's templates stand for in each task, once it has its node. Pure.

A volume whose name has a placeholder is one for each text that comes of it: `name: data-{{.Task.Slot}}` gives each replica
its own. The content of a config is filled in on the node, which has it; what it may name goes along with the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from agent.contract.container import Container, File
from agent.contract.golang_template import TemplateError
from agent.contract.swarm_placeholder import names_swarm
from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.placement.context import PlacementContext
from orchestrator.stackfile.model import Service, Stack, StackVolume
from orchestrator.stackfile.templates import expanded, has_templates, values_of


def with_templates(
    stack: Stack, tasks: Sequence[Task], context: PlacementContext
) -> tuple[Stack, list[Task], Mapping[str, str]]:
    """*stack* with the volumes that the names of *tasks* come to, *tasks* with their templates filled in, and for each such
    volume the node of its users, "" where they are on several, each of which has it then.

    Raises PystackError where one cannot be."""
    templated = {(c.kind, c.key) for c in stack.contents if c.template_driver}
    concerned = {
        s.name: s
        for s in stack.services
        if has_templates(s.container) or any((_kind(f), f.source) in templated for f in s.container.files)
    }
    if not concerned:
        return stack, list(tasks), {}
    nodes = _nodes(context)
    volumes = {v.name: v for v in stack.volumes}
    made: dict[str, StackVolume] = {}
    homes: dict[str, str] = {}
    out = []
    for task in tasks:
        service = concerned.get(task.service)
        if service is None:
            out.append(task)
            continue
        container = _with_values(task, _values(stack, service, task, nodes), templated)
        for before, after in zip(task.container.mounts, container.mounts, strict=True):
            if before.source != after.source and before.source in volumes:
                homes[after.source] = task.node if homes.get(after.source, task.node) == task.node else ""
                made[after.source] = msgspec.structs.replace(volumes[before.source], name=after.source)
        out.append(msgspec.structs.replace(task, container=container))
    plain = tuple(v for v in stack.volumes if not names_swarm(v.name))
    return msgspec.structs.replace(stack, volumes=(*plain, *made.values())), out, homes


def oneoff_with_templates(stack: Stack, service: Service, task: Task, context: PlacementContext) -> Task:
    """The one-off *task* of *service* with its templates filled in: it has its own name, and else what the first replica has.

    Raises PystackError where one cannot be."""
    templated = {(c.kind, c.key) for c in stack.contents if c.template_driver}
    if not has_templates(task.container) and not any((_kind(f), f.source) in templated for f in task.container.files):
        return task
    first = msgspec.structs.replace(task, index=1)
    return msgspec.structs.replace(
        task, container=_with_values(task, _values(stack, service, first, _nodes(context)), templated)
    )


def _with_values(task: Task, values: Mapping[str, Any], templated: Set[tuple[str, str]]) -> Container:
    """The container of *task*, its templates and those of the contents that are *templated* filled in."""
    try:
        container = expanded(task.container, values)
    except TemplateError as error:
        raise PystackError(f"{task.where}: {task.name}: {error}") from None
    files = tuple(_filled(f, values) if (_kind(f), f.source) in templated else f for f in container.files)
    return msgspec.structs.replace(container, files=files)


def _nodes(context: PlacementContext) -> dict[str, dict[str, Any]]:
    """What templates can say of each node, by name."""
    return {
        n.name: {
            "ID": n.id,
            "Hostname": n.info.hostname or n.name,
            "Platform": {"OS": n.info.os, "Architecture": n.info.arch},
        }
        for n in context.nodes
    }


def _values(stack: Stack, service: Service, task: Task, nodes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    node = nodes.get(task.node, {"ID": "", "Hostname": task.node, "Platform": {"OS": "", "Architecture": ""}})
    everywhere = service.mode in ("global", "global-job")
    return values_of(
        stack.name,
        service.name,
        dict(service.labels),
        task=task.name,
        node=node,
        slot=str(node["ID"]) if everywhere else str(task.index),
    )


def _kind(file: File) -> str:
    return "secret" if file.secret else "config"


def _filled(file: File, values: Mapping[str, Any]) -> File:
    return msgspec.structs.replace(file, template=tuple(sorted(flat(values))))


def flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """*values* as names and texts; the parts of a name are divided by a character that no label has (`File.template`)."""
    out: list[tuple[str, str]] = []
    for name, value in values.items():
        at = f"{above}{name}"
        out += flat(value, f"{at}\x1f") if isinstance(value, Mapping) else [(at, str(value))]
    return out
