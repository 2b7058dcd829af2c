"""Tasks that must share a node: they use the same local volume or single-host network, or each other's namespaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.contract.swarm_placeholder import names_swarm
from agent.contract.task import Task
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.greedy import TaskGroup
from orchestrator.placement.request import PlacementRequest, merge_requests
from orchestrator.stackfile.model import Service, Stack

Colocated = tuple[PlacementRequest, list[Task]]
"""Tasks that must share a node, and what they ask of it together."""


def colocate(
    stack: Stack, tasks: Sequence[Task], requests: Mapping[str, PlacementRequest], context: PlacementContext
) -> list[Colocated]:
    """*tasks* in groups that must share a node. On a single node they do anyway: there each is its own group."""
    if len(context.nodes) < 2:
        return [(requests[f"{stack.name}/{t.service}"], [t]) for t in tasks]
    by_service: dict[str, list[Task]] = {}
    for task in tasks:
        by_service.setdefault(task.service, []).append(task)
    out: list[Colocated] = []
    for names, together in components(stack):
        members = [t for n in names for t in by_service.get(n, ())]
        if not together:
            out += [(requests[f"{stack.name}/{t.service}"], [t]) for t in members]
        elif members:
            out.append((merge_requests([requests[f"{stack.name}/{t.service}"] for t in members]), members))
    return out


def group_equal(colocated: Sequence[Colocated]) -> tuple[list[list[list[Task]]], list[TaskGroup]]:
    """Equal requests as copies of one group: the tasks of each copy, and the group for the solvers."""
    grouped: dict[PlacementRequest, list[list[Task]]] = {}
    for request, members in colocated:
        grouped.setdefault(request, []).append(members)
    return list(grouped.values()), [TaskGroup(request, len(copies)) for request, copies in grouped.items()]


def components(stack: Stack) -> list[tuple[list[str], bool]]:
    """The services that are tied to one another, in the order of the file, and whether all their tasks must share a node."""
    # not at the top: 13 MB and 0.1 s that a single host can save
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(s.name for s in stack.services)
    known = {s.name for s in stack.services}
    first_user: dict[tuple[str, str], str] = {}
    tied: set[str] = set()
    one_host = {("network", n.name) for n in stack.networks if n.one_host}
    # a name with a placeholder is one volume for each task
    local = {("volume", v.name) for v in stack.volumes if not v.shared and not names_swarm(v.name)}
    for service in stack.services:
        for other in _donors(service) & known:
            graph.add_edge(service.name, other)
        attached = [("network", a.network) for a in service.container.attachments]
        mounted = [("volume", m.source) for m in service.container.mounts if m.kind == "volume"]
        for used in (*attached, *mounted):
            if used in one_host or used in local:
                graph.add_edge(service.name, first_user.setdefault(used, service.name))
                tied.add(service.name)
    out = []
    for component in nx.connected_components(graph):
        names = [s.name for s in stack.services if s.name in component]
        out.append((names, len(names) > 1 or names[0] in tied))
    return out


def _donors(service: Service) -> set[str]:
    """The services whose namespaces or mounts *service* uses, or that it links to: they must be on the same host."""
    c = service.container
    volumes = {v.split(":")[0] for v in c.volumes_from if not v.startswith("container:")}
    namespaces = {m[8:] for m in (c.network_mode, c.pid_mode, c.ipc_mode) if m.startswith("service:")}
    return volumes | {target for _, target in c.links} | namespaces
