"""What clients of Swarm's endpoints change: each change is a plan of the stack that it concerns, and a revision of it.

Source: Docker Engine API v1.48, ServiceUpdate, ServiceDelete, NodeUpdate, SecretCreate.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.contract.printable import quoted
from orchestrator.errors import PystackError, RefusedError
from orchestrator.placement.node import Availability
from orchestrator.server import lifecycle
from orchestrator.server.events import Event, WarningEvent
from orchestrator.server.membership import NodeUpdateRequest
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.server.rollouts.manager import Derive
from orchestrator.stackfile.model import Service, Stack
from orchestrator.swarm import objects, specs
from orchestrator.swarm.objects import Object
from orchestrator.swarm.view import Named, View

USER = "docker"
AVAILABILITY: dict[str, Availability] = {"active": "active", "pause": "pause", "drain": "drain"}


class Warnings:
    """Takes the events of a change, and keeps the warnings."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def __call__(self, event: Event) -> None:
        """Keep the text of a warning."""
        if isinstance(event, WarningEvent):
            self.all.append(event.message)


async def update_service(plane: ControlPlane, text: str, spec: Object, networks: Mapping[str, str]) -> list[str]:
    """Make the service *text* as *spec* says, as far as that is replicas, image, environment and a new round; the warnings of
    it. Raises RefusedError for any other difference: that is the stack file's. A service that came from a client of Swarm's is
    what such a client makes of it."""
    found = View(plane).service(text)
    if found.service.where == specs.WHERE:
        return await _bring(plane, spec, networks, found.service.name)
    return await _change(plane, lambda: _updated(View(plane).service(text), text, spec))


def _updated(found: Named, text: str, spec: Object) -> tuple[Stack, UpOptions]:
    present = objects.service_of(found.record, found.service, [], [])["Spec"]
    service, force = changed(found.service, present, spec)
    options = UpOptions(services=(service.name,), force_recreate=force, no_deps=True, wait=False, user=USER, message=_why(text))
    return _with(found, service), options


async def create_service(plane: ControlPlane, spec: Object, networks: Mapping[str, str]) -> tuple[str, list[str]]:
    """A service as *spec* has it, in its stack, which may be new; its ID, and warnings. Raises RefusedError."""
    stack, name = specs.names_of(spec)
    whole = objects.service_name(stack, name)
    ident = objects.identity("service", whole)
    if ident in View(plane).named():
        raise RefusedError(
            f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: service {whole}", 409
        )
    return ident, await _bring(plane, spec, networks, name)


async def _bring(plane: ControlPlane, spec: Object, networks: Mapping[str, str], name: str) -> list[str]:
    known = {objects.identity("network", n): n for n in plane.state.networks} | dict(networks)
    made = await asyncio.to_thread(specs.read, spec, known)

    def joined() -> tuple[Stack, UpOptions]:
        record = plane.state.stacks.get(made.name)
        options = UpOptions(
            services=(name,),
            force_recreate=bool((spec.get("TaskTemplate") or {}).get("ForceUpdate")) and record is not None,
            no_deps=True,
            wait=False,
            user=USER,
            message=f"docker service {name}",
        )
        return specs.joined(record.stack if record else None, made), options

    return await _change(plane, joined)


def _why(text: str) -> str:
    return f"docker service update {text}"


def _with(found: Named, service: Service) -> Stack:
    stack = found.record.stack
    services = tuple(service if s.name == service.name else s for s in stack.services)
    return msgspec.structs.replace(stack, services=services)


async def _change(plane: ControlPlane, derive: Derive, *, wait: bool = False) -> list[str]:
    """Begin what *derive* says, as Swarm does: its clients look themselves how far it is, unless they *wait* here."""
    warnings = Warnings()
    failures = await (plane.rollouts.change if wait else plane.rollouts.begin)(derive, warnings)
    if failures:
        raise PystackError("; ".join(f"{f.task}: {f.reason}" for f in failures))
    return warnings.all


def changed(service: Service, present: Object, wanted: Object) -> tuple[Service, bool]:
    """*service* as *wanted* has it, and whether its tasks are to be new in any case. Raises RefusedError."""
    container = service.container
    mode, template = wanted.get("Mode") or {}, wanted.get("TaskTemplate") or {}
    spec = template.get("ContainerSpec") or {}
    replicas = (mode.get("Replicated") or {}).get("Replicas", service.replicas)
    if not isinstance(replicas, int) or replicas < 0:
        raise RefusedError(f"replicas {quoted(str(replicas))}: a number of tasks", 400)
    image = str(spec.get("Image") or container.image).partition("@sha256:")[0]
    given = spec.get("Env")
    environment = [str(e) for e in given] if isinstance(given, list) else [f"{k}={v}" for k, v in container.environment]
    pairs = tuple((k, v) for k, _, v in (e.partition("=") for e in environment))
    force = bool(template.get("ForceUpdate"))
    made = _without_changes(present, wanted, replicas, image, environment)
    if different := sorted(_differences(_bare(made), _bare(wanted))):
        raise RefusedError(
            f"{', '.join(different)}: that is the stack file's, change it there and bring it up; by `docker service update` "
            "replicas, image, environment and --force can be changed",
            400,
        )
    made_of = msgspec.structs.replace(container, image=image, environment=pairs)
    return msgspec.structs.replace(service, container=made_of, replicas=replicas), force


def _without_changes(present: Object, wanted: Object, replicas: int, image: str, environment: list[str]) -> Object:
    """*present* with what may differ as it is wanted."""
    made = msgspec.json.decode(msgspec.json.encode(present))
    template = made["TaskTemplate"]
    template["ContainerSpec"] |= {"Image": image, "Env": environment}
    template["ForceUpdate"] = (wanted.get("TaskTemplate") or {}).get("ForceUpdate", 0)
    if "Replicated" in made["Mode"]:
        made["Mode"] = {"Replicated": {"Replicas": replicas}}
    made["Labels"]["com.docker.stack.image"] = (wanted.get("Labels") or {}).get("com.docker.stack.image", image)
    given = ((wanted.get("TaskTemplate") or {}).get("ContainerSpec") or {}).get("Image", "")
    if given.partition("@sha256:")[0] == image:
        template["ContainerSpec"]["Image"] = given
    return dict(made)


def _bare(value: Any) -> Any:
    """*value* without what is empty, false or 0: clients leave that out when they send back what they read."""
    if isinstance(value, dict):
        return {k: bare for k, v in value.items() if (bare := _bare(v)) not in (None, "", False, 0, [], {})}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _differences(one: Any, other: Any, path: str = "") -> set[str]:
    """Paths at which two bare documents differ."""
    if not (isinstance(one, dict) or isinstance(other, dict)):
        return set() if one == other else {path}
    one, other = ({} if value is None else value for value in (one, other))
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {path}
    found: set[str] = set()
    for key in one.keys() | other.keys():
        found |= _differences(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    return found


async def remove_service(plane: ControlPlane, text: str) -> None:
    """Take a service out of its stack; with the last one the stack goes. Raises RefusedError."""
    found = View(plane).service(text)
    if not _left(found):
        await lifecycle.down(plane.dispatcher, found.record.stack.name, volumes=False, emit=Warnings())
        return
    await _change(plane, lambda: _without(View(plane).service(text), text), wait=True)


def _left(found: Named) -> tuple[Service, ...]:
    """What the stack of a service has besides it."""
    name = found.service.name
    return tuple(s for s in found.record.stack.services if name not in (s.name, s.is_pre_start_of))


def _without(found: Named, text: str) -> tuple[Stack, UpOptions]:
    services = tuple(
        msgspec.structs.replace(s, depends_on=tuple(d for d in s.depends_on if d.service != found.service.name))
        for s in _left(found)
    )
    options = UpOptions(remove_orphans=True, wait=False, user=USER, message=f"docker service rm {text}")
    return msgspec.structs.replace(found.record.stack, services=services), options


async def update_node(plane: ControlPlane, text: str, spec: Object) -> None:
    """Labels and availability of a node. Raises RefusedError."""
    name = View(plane).one("node", text)["Spec"]["Name"]
    node = plane.cluster.get(name).node
    labels = tuple((str(k), str(v)) for k, v in (spec.get("Labels") or {}).items())
    availability = AVAILABILITY.get(str(spec.get("Availability", "")))
    if availability is None:
        raise RefusedError(f"availability {quoted(str(spec.get('Availability')))}: active, pause or drain", 400)
    role = "manager" if node.server or node.is_servers_own else "worker"
    if spec.get("Role", role) != role:
        raise RefusedError(
            "a node is a manager where a server of pystack runs: roles are not given by `docker node update`", 400
        )
    gone = tuple(key for key, _ in node.labels if key not in dict(labels))
    request = NodeUpdateRequest(labels=labels, unset=gone, availability=availability)
    if availability == node.availability:  # a drained node that gets a label is not drained again
        request = msgspec.structs.replace(request, availability=None)
    await plane.drainer.begin(name, request)


async def create_content(plane: ControlPlane, kind: str, spec: Object) -> str:
    """A secret or a config by hand; its ID. Raises RefusedError."""
    name = str(spec.get("Name") or "")
    try:
        data = base64.b64decode(str(spec.get("Data") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("Data: it is not base64 (RFC 4648)", 400) from None
    await plane.contents.create(kind, name, data, replace=False)
    return objects.identity(kind, name)


async def remove_content(plane: ControlPlane, kind: str, text: str) -> None:
    """Raises RefusedError where a stack uses it, or has it."""
    found = View(plane).one(kind, text)
    name = found["Spec"]["Name"]
    stack = found["Spec"]["Labels"].get(objects.PROJECT, "")
    users = {r.stack.name for r in plane.state.stacks.values() for c in r.stack.contents if (c.kind, c.name) == (kind, name)}
    if stack:
        raise RefusedError(f"{kind} {quoted(name)} is of the stack {stack}: it goes with it", 409)
    await plane.contents.remove(kind, name, users)
