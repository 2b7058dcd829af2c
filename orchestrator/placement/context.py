"""The input of placement besides the stack: the nodes, and the tasks of other stacks on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from agent.contract.swarm_placeholder import names_swarm
from agent.contract.task import Task
from orchestrator.placement.eviction import Eviction
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import DRIVERS, Service, Stack

HOST_SPECIFIC_PATHS = (
    "/var/run",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/etc/localtime",
    "/etc/timezone",
    "/lib/modules",
    "/var/log",
)
"""A bind mount of one of these uses the files of the task's own node; any other path is on the server's host."""


class PlacementContext(msgspec.Struct, frozen=True, kw_only=True):
    """*nodes* are all nodes, *ready* has the names of those that answer, *local* is the name of
    the server's own. *others* are tasks of other stacks
    with their *requests* by `<stack>/<service>`; *homes* maps volumes that have a node to it, *moves* tasks to the node
    that they are to move to. *ended* maps the tasks of jobs that have ended to their definitions: they reserve nothing.
    Tasks of *stacks* may have to go for others of higher priority; *preempted* are those of the stack itself that had to, by
    name."""

    nodes: Sequence[Node]
    ready: Set[str]
    local: str
    others: Sequence[Task] = ()
    requests: Mapping[str, PlacementRequest] = {}
    homes: Mapping[str, str] = {}
    moves: Mapping[str, str] = {}
    ended: Mapping[str, str] = {}
    stacks: Mapping[str, Stack] = {}
    preempted: Mapping[str, Eviction] = {}

    def reserving(self, tasks: Iterable[Task]) -> list[Task]:
        """Those of *tasks* that need what their services reserve: all but the ones that have ended, and would not run again."""
        return [t for t in tasks if self.ended.get(t.name) != t.definition]


def service_requests(stack: Stack, context: PlacementContext) -> dict[str, PlacementRequest]:
    """The request of one replica of each service, by `<stack>/<service>`."""
    return {f"{stack.name}/{s.name}": request_of(stack, s, context) for s in stack.services}


def request_of(stack: Stack, service: Service, context: PlacementContext) -> PlacementRequest:
    """The request of one replica of *service*."""
    pinned, pinned_by = _pinned(service, context)
    used = {a.network for a in service.container.attachments}
    networks = [n for n in stack.networks if n.name in used]
    return PlacementRequest(
        service=f"{stack.name}/{service.name}",
        placement=service.placement,
        reserves=service.reserves,
        ports=frozenset((p.published, p.protocol) for p in service.container.ports if p.published and p.mode == "host"),
        near=tuple(f"{stack.name}/{n}" for n in service.placement.near),
        away=tuple(f"{stack.name}/{n}" for n in service.placement.away),
        pinned=pinned,
        pinned_by=pinned_by,
        parents=tuple((n.parent, n.name) for n in networks if n.parent),
        drivers=tuple((n.driver, n.name) for n in networks if n.driver and n.driver not in DRIVERS),
        devices=service.container.device_requests,
        sized=_sized(stack, service),
        priority=service.priority,
        limited=tuple(a.network for a in service.container.attachments if a.bandwidth),
        # on a single node nothing leaves the host
        encrypted=tuple(n.name for n in networks if n.encrypted) if len(context.nodes) > 1 else (),
    )


def _sized(stack: Stack, service: Service) -> tuple[str, ...]:
    """What of *service* has a size that its node's disk must keep: its own files, or volumes."""
    used = {m.source for m in service.container.mounts if m.kind == "volume"}
    volumes = (f"volume {v.key}" for v in stack.volumes if v.name in used and not v.external and "size" in dict(v.options))
    return (*(("the writable layer",) if service.container.storage_size else ()), *volumes)


def _pinned(service: Service, context: PlacementContext) -> tuple[str, str]:
    """The only node that has the service's mounts, and why; "" for any. A volume goes before a bind mount."""
    pinned, reason = "", ""
    everywhere = service.mode in ("global", "global-job")
    for mount in service.container.mounts:
        if mount.kind == "volume" and mount.source in context.homes and not everywhere:
            pinned, reason = context.homes[mount.source], f"volume {mount.source} is"
        elif (
            mount.kind == "bind"
            and not pinned
            and not (everywhere and mount.source not in service.project_paths)  # each node has its own
            and len(context.nodes) > 1
            and not mount.source.startswith(HOST_SPECIFIC_PATHS)
            and not names_swarm(mount.source)
        ):
            pinned, reason = context.local, f"bind mount {mount.source} is"
    return pinned, reason


def table_with(context: PlacementContext, tasks: Sequence[Task], requests: Mapping[str, PlacementRequest]) -> NodeTable:
    """The nodes with the tasks of other stacks counted in, and with *tasks* of this one, whose *requests* are given."""
    table = NodeTable(context.nodes, context.ready)
    table.commit_tasks(context.reserving(context.others), context.requests)
    table.commit_tasks(context.reserving(tasks), requests)
    return table
