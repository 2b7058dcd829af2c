"""Makes room for tasks by taking away tasks of a lower priority (`x-priority`). Pure.

What is chosen follows the scheduler of Kubernetes (Pod Priority and Preemption): the node where the fewest services fall below
what they keep during an update, then where the highest of the priorities that go is lowest, then where the fewest tasks go.
Unlike it, the tasks to go are searched for as a set, the cheapest first; so none goes that need not.
"""

from __future__ import annotations

import collections
import functools
import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agent.contract.task import Task
from orchestrator.placement.colocation import components
from orchestrator.placement.context import PlacementContext, service_requests
from orchestrator.placement.cost import cost
from orchestrator.placement.eviction import Eviction
from orchestrator.placement.feasibility import Feasibility, static_mask
from orchestrator.placement.filters import FILTERS
from orchestrator.placement.filters.base import AffinityFilter, ResourceFilter
from orchestrator.placement.greedy import best_node
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Service, Stack

SEARCHED = 2000
"""How many sets of tasks are tried for a node. Beyond it, one is taken from which no task can be left out."""


class Harm(NamedTuple):
    """What a set of evictions costs, the worst first: how many tasks services lose beyond what they can spare, the highest
    priority, how many tasks go, and their priorities added up."""

    unspared: int
    highest: int
    tasks: int
    total: int


NO_HARM = Harm(0, -(1 << 62), 0, 0)


class Alike(NamedTuple):
    """Tasks of one service on one node: whichever of them goes is the same."""

    request: PlacementRequest
    tasks: tuple[Task, ...]


class Room(NamedTuple):
    """A node, by its *row*, that can take a request once *victims* are gone."""

    harm: Harm
    row: int
    victims: tuple[Task, ...]


class RoomMaker:
    """Finds tasks that may go. *table* has all tasks counted in, *placed* are those of *stack*, with their nodes; what is
    found is taken out of the table."""

    def __init__(self, stack: Stack, placed: Sequence[Task], context: PlacementContext, table: NodeTable) -> None:
        self._stack, self._placed, self._context = stack, list(placed), context
        self._table = table
        self._requests = {**context.requests, **service_requests(stack, context)}
        self._added: list[Task] = []
        self.evicted: list[Eviction] = []

    @functools.cached_property
    def _by_stack(self) -> list[tuple[Stack, list[Task]]]:
        """The stacks whose tasks may go, with all of their tasks."""
        of_others: dict[str, list[Task]] = {}
        for task in self._context.others:
            of_others.setdefault(task.stack, []).append(task)
        others = [(s, of_others.get(s.name, [])) for s in self._context.stacks.values()]
        return [*others, (self._stack, self._placed)]

    @functools.cached_property
    def _removable(self) -> set[str]:
        return {t.name for s, tasks in self._by_stack for t in _removable(s, self._context.reserving(tasks))}

    @functools.cached_property
    def _spare(self) -> dict[str, int]:
        return {key: number for s, tasks in self._by_stack for key, number in _spare(s, tasks).items()}

    @functools.cached_property
    def _on_node(self) -> dict[str, dict[str, Task]]:
        out: dict[str, dict[str, Task]] = {}
        for task in self._context.reserving([*self._context.others, *self._placed, *self._added]):
            out.setdefault(task.node, {})[task.name] = task
        return out

    def add(self, tasks: Sequence[Task]) -> None:
        """Take note of *tasks*, which the table has counted in: none of them may go."""
        self._added += tasks
        if "_on_node" in self.__dict__:
            for task in tasks:
                self._on_node.setdefault(task.node, {})[task.name] = task

    def place(self, request: PlacementRequest, tasks: Sequence[Task]) -> str:
        """The node for *tasks*, which share *request*, counted into the table; "" where no node can take them. Who has to go
        for them is added to `evicted`."""
        if (found := self.find(request)) is None:
            return ""
        node = self._table.nodes[found.row].name
        for victim in found.victims:
            self._take_away(victim, found.row, tasks[0].name, request.priority)
        self._table.commit(request, found.row)
        self.add([msgspec.structs.replace(t, node=node) for t in tasks])
        return node

    def _take_away(self, victim: Task, row: int, by: str, by_priority: int) -> None:
        key = f"{victim.stack}/{victim.service}"
        self._table.commit(self._requests[key], row, -1)
        self._spare[key] = max(0, self._spare[key] - 1)
        self._removable.discard(victim.name)
        del self._on_node[victim.node][victim.name]
        self.evicted.append(
            Eviction(
                task=victim.name,
                stack=victim.stack,
                service=victim.service,
                node=victim.node,
                priority=self._requests[key].priority,
                by=by,
                by_priority=by_priority,
            )
        )

    def find(self, request: PlacementRequest) -> Room | None:
        """The node that can take *request* at the least harm, none if one has room for it anyhow; None if no node can."""
        if (free := best_node(Feasibility(request, self._table))) is not None:
            return Room(NO_HARM, free, ())
        best: Room | None = None
        order = cost(request, self._table).tolist()
        fit = static_mask(request, self._table).tolist()
        for row in sorted((r for r, ok in enumerate(fit) if ok), key=lambda r: order[r]):
            if found := self.on_row(request, row, best.harm if best else None):
                best = found
        return best

    def on_row(self, request: PlacementRequest, row: int, below: Harm | None = None) -> Room | None:
        """The cheapest set of tasks whose going makes room for *request* on one node; None if there is none, or none with
        less harm than *below*."""
        node = self._table.nodes[row]
        there = tuple(self._on_node.get(node.name, {}).values())
        trial = Trial(request, node, self._requests, there, ready=bool(self._table.ready[row]))
        if trial.fits(()):
            return Room(NO_HARM, row, ())
        kinds = [k for k in self._kinds(request, node.name) if trial.would_help(k.request)]
        everything = [k.request for k in kinds for _ in k.tasks]
        if not kinds or not trial.fits(everything):
            return None
        chosen = self._cheapest(trial, kinds, below)
        if chosen is None or (below is not None and self._harm(kinds, chosen) >= below):
            return None
        victims = [t for kind, count in zip(kinds, chosen, strict=True) for t in kind.tasks[:count]]
        return Room(self._harm(kinds, chosen), row, tuple(victims))

    def _kinds(self, request: PlacementRequest, node: str) -> list[Alike]:
        """The tasks on *node* that may go for *request*, those alike together: the lowest priority first, the newest replica
        first."""
        by_service: dict[str, list[Task]] = {}
        for task in self._on_node.get(node, {}).values():
            key = f"{task.stack}/{task.service}"
            lower = self._requests[key].priority < request.priority if key in self._requests else False
            if task.name in self._removable and lower and key not in request.near:
                by_service.setdefault(key, []).append(task)
        kinds = [
            Alike(self._requests[key], tuple(sorted(tasks, key=lambda t: (-t.index, t.name))))
            for key, tasks in by_service.items()
        ]
        return sorted(kinds, key=lambda k: (k.request.priority, k.request.service))

    def _harm(self, kinds: Sequence[Alike], counts: Sequence[int]) -> Harm:
        chosen = [(k.request, n) for k, n in zip(kinds, counts, strict=True) if n]
        return Harm(
            sum(max(0, n - self._spare[r.service]) for r, n in chosen),
            max(r.priority for r, _ in chosen),
            sum(n for _, n in chosen),
            sum(n * r.priority for r, n in chosen),
        )

    def _cheapest(self, trial: Trial, kinds: Sequence[Alike], below: Harm | None) -> tuple[int, ...] | None:
        """How many of each of *kinds* go: the set of the least harm that makes room. Harm only grows with a set, so that the
        first that fits, tried in the order of harm, is the one."""
        nothing = (0,) * len(kinds)
        heap: list[tuple[Harm, tuple[int, ...], int]] = [(NO_HARM, nothing, 0)]
        for _ in range(SEARCHED):
            if not heap:
                return None
            harm, counts, first = heapq.heappop(heap)
            if below is not None and harm >= below:
                return None
            if trial.fits([k.request for k, n in zip(kinds, counts, strict=True) for _ in range(n)]):
                return counts
            for i in range(first, len(kinds)):
                if counts[i] < len(kinds[i].tasks):
                    more = (*counts[:i], counts[i] + 1, *counts[i + 1 :])
                    heapq.heappush(heap, (self._harm(kinds, more), more, i))
        return self._irreducible(trial, kinds)

    @staticmethod
    def _irreducible(trial: Trial, kinds: Sequence[Alike]) -> tuple[int, ...]:
        """All go but those that can stay, asked from the highest priority down, as Kubernetes reprieves them."""
        counts = [len(k.tasks) for k in kinds]
        for i in reversed(range(len(kinds))):
            while counts[i]:
                counts[i] -= 1
                if not trial.fits([k.request for k, n in zip(kinds, counts, strict=True) for _ in range(n)]):
                    counts[i] += 1
                    break
        return tuple(counts)


class Trial:
    """One node with what runs there, and whether *request* fits when some of that is gone."""

    def __init__(
        self,
        request: PlacementRequest,
        node: Node,
        requests: Mapping[str, PlacementRequest],
        there: Sequence[Task],
        *,
        ready: bool,
    ) -> None:
        self._table = NodeTable((node,), {node.name} if ready else set())
        self._table.commit_tasks(there, requests)
        self._feasibility = Feasibility(request, self._table)
        changing = [(f, c) for f in FILTERS if not f.static for c in f.conditions(request)]
        self._failing = [(f, c) for f, c in changing if not f.mask(c, self._table)[0]]

    def fits(self, gone: Sequence[PlacementRequest]) -> bool:
        """Whether the node can take the request when tasks with the requests *gone* are."""
        for one in gone:
            self._table.commit(one, 0, -1)
        fits = bool(self._feasibility.mask()[0])
        for one in gone:
            self._table.commit(one, 0)
        return fits

    def would_help(self, other: PlacementRequest) -> bool:
        """Whether a task of *other* uses something that the node lacks for the request."""
        for one, condition in self._failing:
            if isinstance(one, ResourceFilter):
                wanted = one.resource(condition)
                if any(one.resource(c) == wanted and one.amount(c) for c in one.conditions(other)):
                    return True
            elif isinstance(one, AffinityFilter) and not one.together and condition == other.service:
                return True
        return False


def _removable(stack: Stack, tasks: Sequence[Task]) -> list[Task]:
    """Those of *tasks* that may be taken away for a while: replicas that run, need not share their node with others, have no
    place of their own, and may begin again."""
    count = collections.Counter(t.service for t in tasks)
    # one with a volume of its node shares that node with its other replicas alone
    alone = {n[0] for n, together in components(stack) if len(n) == 1 and (not together or count[n[0]] == 1)}
    services = {s.name for s in stack.services if s.name in alone and _may_go(s)}
    return [t for t in tasks if t.service in services and t.planned and t.desired == "running" and t.share < 0]


def _may_go(service: Service) -> bool:
    once = service.is_job and service.container.restart == "no"
    return service.mode in ("replicated", "replicated-job") and not (
        service.stable or service.schedule or service.is_pre_start_of or once
    )


def _spare(stack: Stack, tasks: Sequence[Task]) -> dict[str, int]:
    """How many tasks each service can do without, as in an update: `update_config.parallelism` of its replicas, one unless it
    says more, down to the `min` of x-scale, and never the last one. A job can do without all."""
    out = {}
    for service in stack.services:
        there = sum(t.service == service.name and t.planned for t in tasks)
        pace = service.update.parallelism if service.update else 1
        least = service.scale.least if service.scale else service.replicas - (pace or service.replicas)
        out[f"{stack.name}/{service.name}"] = there if service.is_job else max(0, there - max(least, 1))
    return out
