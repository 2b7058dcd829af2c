"""Ports of a range, one for each task: `ports: ["8080-8082:80"]`. Pure.

On a host that is alone, in mode host and at one address, each task publishes a port of its own, the lowest that is free on its
node. Where any node answers for the service, every port of the range does, and connections are balanced as those to any other.
Source: Compose Specification, 05-services.md, "ports"; Docker's manual, "Port publishing and mapping".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from agent.contract.container import Port
from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.placement.context import PlacementContext
from orchestrator.stackfile.model import PortRange, Service, Stack

WILD = ("", "0.0.0.0", "::")


def with_ports(stack: Stack, tasks: Sequence[Task], known: Mapping[str, Task], context: PlacementContext) -> list[Task]:
    """*tasks*, which have their nodes, with the ports that they take; those *known* keep theirs.

    Raises PystackError where a range is used up."""
    services = {s.name: s for s in stack.services if s.port_ranges}
    if not services:
        return list(tasks)
    taken: dict[tuple[str, str, int], list[str]] = {}
    for task in (*context.others, *tasks):
        _take(taken, task.node, task.container.ports)
    chosen: dict[str, list[Port]] = {}
    for task in tasks:  # a port that is held stays held
        for one in _own(services.get(task.service), context):
            port = _held(one, known.get(task.name))
            if port and _free(taken, task.node, port):
                chosen.setdefault(task.name, []).append(port)
                _take(taken, task.node, [port])
    out = []
    for task in tasks:
        service = services.get(task.service)
        ports = list(task.container.ports)
        for one in service.port_ranges if service else ():
            if _answers_everywhere(one, context):
                ports += _all(one)
                continue
            kept = next((p for p in chosen.get(task.name, ()) if _is_of(one, p)), None)
            ports.append(kept or _next(one, task, taken))
            _take(taken, task.node, ports[-1:])
        container = msgspec.structs.replace(task.container, ports=tuple(ports))
        out.append(msgspec.structs.replace(task, container=container) if service else task)
    return out


def _answers_everywhere(one: PortRange, context: PlacementContext) -> bool:
    return len(context.nodes) > 1 and one.port.mode == "ingress" and one.port.host_ip in WILD


def _own(service: Service | None, context: PlacementContext) -> Iterable[PortRange]:
    return [r for r in service.port_ranges if not _answers_everywhere(r, context)] if service else ()


def _all(one: PortRange) -> Iterator[Port]:
    return (msgspec.structs.replace(one.port, published=n) for n in range(one.port.published, one.last + 1))


def _is_of(one: PortRange, port: Port) -> bool:
    inside = one.port.published <= port.published <= one.last
    return inside and msgspec.structs.replace(port, published=one.port.published) == one.port


def _held(one: PortRange, task: Task | None) -> Port | None:
    """The port of *one* that *task* has already."""
    return next((p for p in task.container.ports if _is_of(one, p)), None) if task else None


def _next(one: PortRange, task: Task, taken: Mapping[tuple[str, str, int], Sequence[str]]) -> Port:
    for port in _all(one):
        if _free(taken, task.node, port):
            return port
    span = f"{one.port.published}-{one.last}"
    raise PystackError(
        f"{task.where}: {task.name} finds no free port: all of {span}/{one.port.protocol} are taken on node {task.node}: "
        "widen the range, or ask for fewer replicas"
    )


def _take(taken: dict[tuple[str, str, int], list[str]], node: str, ports: Iterable[Port]) -> None:
    for port in ports:
        if port.published:
            taken.setdefault((node, port.protocol, port.published), []).append(port.host_ip)


def _free(taken: Mapping[tuple[str, str, int], Sequence[str]], node: str, port: Port) -> bool:
    there = taken.get((node, port.protocol, port.published), ())
    return not any(host in WILD or port.host_ip in WILD or host == port.host_ip for host in there)
