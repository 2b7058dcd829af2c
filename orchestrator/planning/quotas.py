"""What stacks of one name pattern may take together. Pure: the quotas, what is asked for and what there is go in.

A service under a quota of CPUs or memory must say how much it takes: who says nothing may take all. What counts is the
reservation or the limit of a task, whichever is more, as a task may use up to its limit.
Source: Kubernetes, Resource Quotas ("compute resource quota"): a pod without requests is refused where they have a quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from agent.contract.task import Task
from agent.contract.volume import Volume
from agent.contract.wire import WireStruct
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.units import parse_bytes, show_bytes


class Quota(WireStruct, frozen=True, kw_only=True):
    """What the stacks whose names match *pattern* (`*` and `?` as in a shell) may have together; None is any number. *hosts*
    are patterns of names that their `x-ingress` may say. *memory* and *volume_size* are bytes."""

    pattern: str
    cpus: float | None = None
    memory: int | None = None
    tasks: int | None = None
    volumes: int | None = None
    volume_size: int | None = None
    hosts: tuple[str, ...] | None = None

    def covers(self, stack: str) -> bool:
        """Whether it is one of *stack*."""
        return fnmatchcase(stack, self.pattern)


Services = Mapping[tuple[str, str], Service]
"""(stack, service) → the service."""


def problems(
    quotas: Sequence[Quota],
    stack: Stack,
    tasks: Sequence[Task],
    others: Sequence[Task],
    services: Services,
    volumes: Sequence[Volume],
) -> list[str]:
    """Why *stack* with its *tasks* is more than *quotas* allow, one sentence each with its place. *others* are the tasks of the
    other stacks, *services* all services, *volumes* those that are there or will be, of all stacks."""
    out: list[str] = []
    for quota in quotas:
        if quota.covers(stack.name):
            beside = [t for t in others if quota.covers(t.stack)]
            out += _hosts(quota, stack)
            out += _unsaid(quota, stack, tasks)
            out += _sums(quota, stack, tasks, beside, services)
            covered = [v for v in volumes if not v.external and quota.covers(v.stack)]
            count = sum(not v.external for v in stack.volumes) + sum(v.stack != stack.name for v in covered)
            if quota.volumes is not None and count > quota.volumes:
                where = next((v.where for v in stack.volumes if not v.external), stack.name)
                out.append(f"{where}: quota {quota.pattern}: {count} volumes, and {quota.volumes} are allowed")
            out += _volume_sizes(quota, stack, covered, [*tasks, *beside])
    return out


def _volume_sizes(quota: Quota, stack: Stack, volumes: Sequence[Volume], tasks: Sequence[Task]) -> Iterator[str]:
    """Volumes of nodes that say no size, and the sum of those that do. One that each node has for itself counts for each that
    has a task with it."""
    if quota.volume_size is None:
        return
    places = {v.key: v.where for v in stack.volumes}
    users: dict[str, set[str]] = {}
    for task in tasks:
        for mount in task.container.mounts:
            if mount.kind == "volume":
                users.setdefault(mount.source, set()).add(task.node)
    total, largest, most = 0, stack.name, -1
    for volume in (v for v in volumes if not v.shared):
        options = dict(volume.options)
        mine = volume.stack == stack.name
        if mine and not options.get("size"):
            at = f"{places.get(volume.key, stack.name)}: quota {quota.pattern}: volume {volume.key or volume.name}"
            yield f"{at} does not say how large it is: give it driver_opts.size"
        size = parse_bytes(options.get("size", 0)) * (1 if volume.node else max(1, len(users.get(volume.name, ()))))
        total += size
        if mine and size > most:
            largest, most = places.get(volume.key, stack.name), size
    if total > quota.volume_size:
        limit = show_bytes(quota.volume_size)
        yield f"{largest}: quota {quota.pattern}: size of volumes: {show_bytes(total)} with this, and {limit} are allowed"


def _hosts(quota: Quota, stack: Stack) -> Iterator[str]:
    if quota.hosts is None:
        return
    for service in stack.services:
        for rule in service.ingress:
            if not any(fnmatchcase(rule.host, pattern) for pattern in quota.hosts):
                allowed = ", ".join(quota.hosts) or "none"
                yield f"{rule.where}: quota {quota.pattern}: host {rule.host} is not one of its own ({allowed})"


def _unsaid(quota: Quota, stack: Stack, tasks: Sequence[Task]) -> Iterator[str]:
    """Services with tasks that do not say what they take of what is limited."""
    used = {t.service for t in tasks}
    for service in stack.services:
        if service.name not in used:
            continue
        cpus, memory = demand(service)
        for name, limited, given in (("cpus", quota.cpus, cpus), ("memory", quota.memory, memory)):
            if limited is not None and not given:
                yield (
                    f"{service.where}: quota {quota.pattern}: service {service.name} does not say how much {name} it takes: "
                    f"give it deploy.resources.limits.{name}"
                )


def _sums(quota: Quota, stack: Stack, tasks: Sequence[Task], beside: Sequence[Task], services: Services) -> Iterator[str]:
    known = {**services, **{(stack.name, s.name): s for s in stack.services}}
    whole = _total([*tasks, *beside], known)
    for name, limit, asked, shown in (
        ("CPUs", quota.cpus, whole[0], "{:g}".format),
        ("memory", quota.memory, whole[1], show_bytes),
        ("tasks", quota.tasks, whole[2], str),
    ):
        if limit is None or asked <= limit + 1e-9:
            continue
        place = _largest(stack, tasks, known)
        yield f"{place}: quota {quota.pattern}: {name}: {shown(asked)} with this, and {shown(limit)} are allowed"


def _total(tasks: Iterable[Task], services: Services) -> tuple[float, int, int]:
    """Cores, bytes of memory and number of *tasks*."""
    cpus, memory, count = 0.0, 0, 0
    for task in tasks:
        count += 1
        if service := services.get((task.stack, task.service)):
            cpus, memory = cpus + demand(service)[0], memory + demand(service)[1]
    return cpus, memory, count


def _largest(stack: Stack, tasks: Sequence[Task], services: Services) -> str:
    """The place of the service that takes most of the stack."""
    mine = [s for s in stack.services if any(t.service == s.name for t in tasks)]
    if not mine:
        return stack.name
    return max(mine, key=lambda s: _total([t for t in tasks if t.service == s.name], services)).where


def demand(service: Service) -> tuple[float, int]:
    """Cores and bytes that a task of *service* takes: its reservation or its limit, whichever is more; 0 where it says
    nothing."""
    one = service.container
    return max(service.reserves.cpus, one.cpus), max(service.reserves.memory, one.memory)
