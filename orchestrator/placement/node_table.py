"""The nodes as a table with one row a node: what is free there, and how many tasks of each service it has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set

from agent.contract.task import Task
from orchestrator.placement import constraints
from orchestrator.placement.columns import Column, Columns, Mask, PlainColumns
from orchestrator.placement.node import Node
from orchestrator.placement.processor import runs_numpy
from orchestrator.placement.request import PlacementRequest, PortKey

COLUMNS_KEPT = 256
"""Services whose counts are kept as columns: those of 50,000 services on 20,000 nodes would be 8 GB."""


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
        self._counts: dict[str, dict[int, int]] = {}
        """Of each service, by row: most services are on few of the nodes."""
        self._columns_of: dict[str, Column] = {}
        """The same as columns, of the services that were last asked for."""
        self._resources: dict[str, Column] = {}
        self._ports: dict[PortKey, Column] = {}
        self._label_groups: dict[str, tuple[Column, int]] = {}
        self._label_rows: dict[str, Sequence[Column]] = {}
        self._static_masks: dict[Hashable, Mask] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def tasks_of(self, service: str) -> Column:
        """How many requests of `<stack>/<service>` each node holds, as of now: ask again after a commit."""
        column = self._columns_of.get(service)
        if column is None:
            column = self._zeros()
            for row, count in self._counts.get(service, {}).items():
                column[row] = count
            if len(self._columns_of) >= COLUMNS_KEPT:
                self._columns_of.clear()
            self._columns_of[service] = column
        return column

    def count_of(self, service: str, row: int) -> int:
        """How many requests of `<stack>/<service>` the node at *row* holds."""
        return self._counts.get(service, {}).get(row, 0)

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

    def label_rows(self, label: str) -> Sequence[Column]:
        """The rows of each value of *label*, in the order of its numbers in `label_groups`."""
        if label not in self._label_rows:
            self._label_rows[label] = self.columns.rows_by(*self.label_groups(label))
        return self._label_rows[label]

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
        counts = self._counts.setdefault(request.service, {})
        counts[row] = counts.get(row, 0) + count
        if (column := self._columns_of.get(request.service)) is not None:
            column[row] = counts[row]
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


class OneRow(NodeTable):
    """One row of a table of numpy arrays as a table to read: the answers of filters for a node follow from its row alone."""

    def __init__(self, table: NodeTable, row: int) -> None:
        self._table, self._at = table, slice(row, row + 1)
        self.columns = table.columns
        self.cpus_free, self.memory_free = table.cpus_free[self._at], table.memory_free[self._at]

    def tasks_of(self, service: str) -> Column:
        """As of the table."""
        return self._table.tasks_of(service)[self._at]

    def resource_free(self, kind: str) -> Column:
        """As of the table."""
        return self._table.resource_free(kind)[self._at]

    def port_taken(self, port: PortKey) -> Column:
        """As of the table."""
        return self._table.port_taken(port)[self._at]


def columns_for(rows: int) -> Columns:
    """Arrays of numpy for a cluster, lists for a single host and for a processor that cannot run numpy."""
    if rows < 2 or not runs_numpy():
        return PlainColumns()
    # not at the top: a single host never needs it
    from orchestrator.placement.vectors import VectorColumns

    return VectorColumns()
