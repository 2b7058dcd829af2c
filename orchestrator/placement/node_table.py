"""The nodes as a table with one row a node: what is free there, and how many tasks of each service it has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set

from agent.contract.task import Task
from orchestrator.placement import constraints
from orchestrator.placement.columns import Column, Columns, Mask, PlainColumns
from orchestrator.placement.node import Node
from orchestrator.placement.processor import runs_numpy
from orchestrator.placement.request import PlacementRequest, PortKey


class NodeTable:
    """Rows are numbered as *nodes* are ordered; *ready* has the names of those that answer.

    Columns, shape (N,): *ready* is a mask, and may be changed while the table is used; *cpus_free* (cores) and *memory_free*
    (bytes) count what is reserved, not what is used; *tasks* counts tasks. *columns* makes them: numpy arrays where there are
    several nodes, plain lists for one."""

    def __init__(self, nodes: Sequence[Node], ready: Set[str], columns: Columns | None = None) -> None:
        self.nodes = tuple(nodes)
        self.row = {n.name: i for i, n in enumerate(nodes)}
        self.columns = columns or columns_for(len(nodes))
        self.ready: Mask = self.columns.mask([n.name in ready for n in nodes])
        self.cpus_free: Column = self.columns.floats(n.info.cpus for n in nodes)
        self.memory_free: Column = self.columns.floats(n.info.memory for n in nodes)
        self.tasks: Column = self._zeros()
        self._tasks_of: dict[str, Column] = {}
        self._resources: dict[str, Column] = {}
        self._ports: dict[PortKey, Column] = {}
        self._label_groups: dict[str, tuple[Column, int]] = {}
        self._static_masks: dict[Hashable, Mask] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def tasks_of(self, service: str) -> Column:
        """How many requests of `<stack>/<service>` each node holds. The live counter, not a copy."""
        if service not in self._tasks_of:
            self._tasks_of[service] = self._zeros()
        return self._tasks_of[service]

    def resource_free(self, kind: str) -> Column:
        """How much of the resource *kind* is free on each node; nodes declare it as the label `resource.<kind>`. Live."""
        if kind not in self._resources:
            labels = (dict(n.labels).get(f"resource.{kind}", "0") for n in self.nodes)
            self._resources[kind] = self.columns.floats(float(v) if v.isdecimal() else 0.0 for v in labels)
        return self._resources[kind]

    def port_taken(self, port: PortKey) -> Column:
        """1 for nodes on which a task holds *port*, else 0. Live."""
        if port not in self._ports:
            self._ports[port] = self._zeros()
        return self._ports[port]

    def label_groups(self, label: str) -> tuple[Column, int]:
        """Each node's value of *label* as a number, and how many values there are."""
        if label not in self._label_groups:
            words = [constraints.value_of(label, n) or "" for n in self.nodes]
            numbers = {word: i for i, word in enumerate(sorted(set(words)))}
            self._label_groups[label] = self.columns.ints(numbers[w] for w in words), len(numbers)
        return self._label_groups[label]

    def static_mask(self, key: Hashable, make: Callable[[], Mask]) -> Mask:
        """The mask of *key*, made once: for conditions that no placement of tasks changes. Not to be changed."""
        if key not in self._static_masks:
            self._static_masks[key] = make()
        return self._static_masks[key]

    def commit(self, request: PlacementRequest, row: int, count: int = 1) -> None:
        """Count *count* copies of *request* in on a node; a negative number takes copies back."""
        self.cpus_free[row] -= request.reserves.cpus * count
        self.memory_free[row] -= request.reserves.memory * count
        self.tasks[row] += request.tasks * count
        self.tasks_of(request.service)[row] += count
        for kind, number in request.reserves.generic:
            self.resource_free(kind)[row] -= number * count
        for port in request.ports:
            self.port_taken(port)[row] = int(count > 0)

    def commit_tasks(self, tasks: Iterable[Task], requests: Mapping[str, PlacementRequest]) -> None:
        """Count in tasks that stay where they are; *requests* by `<stack>/<service>`, where they are known."""
        for task in tasks:
            if task.node in self.row:
                key = f"{task.stack}/{task.service}"
                self.commit(requests.get(key) or PlacementRequest(service=key), self.row[task.node])

    def _zeros(self) -> Column:
        return self.columns.full(len(self.nodes), 0)


def columns_for(rows: int) -> Columns:
    """Arrays of numpy for a cluster, lists for a single host and for a processor that cannot run numpy."""
    if rows < 2 or not runs_numpy():
        return PlainColumns()
    # not at the top: a single host never needs it
    from orchestrator.placement.vectors import VectorColumns

    return VectorColumns()
