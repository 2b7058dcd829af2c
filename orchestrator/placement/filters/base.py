"""What a placement filter is.

A filter takes its *conditions* from a request: one for each constraint, port or device that the request names, none where the
request does not concern it. A condition is evaluated in one place, as a mask over all nodes; `passes` (which placement goes by)
and `explain` (which `pystack why` and errors show) both read that mask, so that they cannot disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar, Generic, TypeVar

from agent.contract.wire import WireStruct
from orchestrator.placement.columns import Column, Mask
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

C = TypeVar("C", bound=Hashable)
R = TypeVar("R", bound=Hashable)

ALWAYS: tuple[tuple[()], ...] = ((),)
"""The conditions of a filter that concerns every request: a single empty one."""


class Reason(WireStruct, frozen=True, kw_only=True):
    """One condition of the filter called *filter* on one node: whether it holds, and the words for it."""

    filter: str
    ok: bool
    detail: str


class Filter(ABC, Generic[C]):
    """*name* stands in the reasons of `pystack why`. *static*: no placement of other tasks changes the answer."""

    name: ClassVar[str]
    static: ClassVar[bool]

    @abstractmethod
    def conditions(self, request: PlacementRequest) -> Sequence[C]:
        """What *request* asks of this filter, in the order in which `pystack why` shows it."""

    @abstractmethod
    def mask(self, condition: C, table: NodeTable) -> Mask:
        """Shape (N,): where *condition* holds. Not to be changed by the caller."""

    @abstractmethod
    def describe(self, condition: C, table: NodeTable, row: int, *, ok: bool) -> str:
        """The text for the outcome on one node; "" for an outcome not worth a text (only if *ok*)."""

    def passes(self, request: PlacementRequest, table: NodeTable) -> Mask:
        """Shape (N,): the nodes that pass this filter for *request*."""
        mask = table.columns.mask([True] * len(table))
        for condition in self.conditions(request):
            mask = mask & self.mask(condition, table)
        return mask

    def explain(self, request: PlacementRequest, table: NodeTable, row: int) -> list[Reason]:
        """Every condition of *request* on one node; the node passes if all of them are ok."""
        masks = [(condition, self.mask(condition, table)) for condition in self.conditions(request)]
        return self.reasons(masks, table, row)

    def reasons(self, masks: Sequence[tuple[C, Mask]], table: NodeTable, row: int) -> list[Reason]:
        """`explain` with the *masks* of all conditions, for callers that need many rows."""
        found = []
        for condition, mask in masks:
            ok = bool(mask[row])
            if detail := self.describe(condition, table, row, ok=ok):
                found.append(Reason(filter=self.name, ok=ok, detail=detail))
        return found


class StaticFilter(Filter[C]):
    """A condition on a node's properties, which do not change while a table is used: it is evaluated once for a table."""

    static = True

    @abstractmethod
    def holds(self, condition: C, table: NodeTable) -> list[bool]:
        """For each node, whether *condition* holds there."""

    def mask(self, condition: C, table: NodeTable) -> Mask:
        return table.static_mask((self.name, condition), lambda: table.columns.mask(self.holds(condition, table)))


class ResourceFilter(Filter[C], Generic[C, R]):
    """A condition on something that tasks use up. `capacity` is for the greedy solver; the other methods give the exact solver
    whole numbers."""

    static = False

    @abstractmethod
    def capacity(self, condition: C, table: NodeTable) -> Column:
        """Shape (N,): how many more copies of a request with *condition* each node can take."""

    @abstractmethod
    def resource(self, condition: C) -> R:
        """What *condition* uses up: requests with the same resource share it."""

    def amount(self, condition: C) -> int:
        """How many whole units of it one copy uses, rounded up."""
        return 1

    @abstractmethod
    def free(self, resource: R, table: NodeTable, row: int) -> int:
        """How many whole units of *resource* a node has free, rounded down."""


class AffinityFilter(Filter[str]):
    """A condition on a service, `<stack>/<service>`: it must (*together*) or must not have a task on the node."""

    static = False
    together: ClassVar[bool]

    def mask(self, condition: str, table: NodeTable) -> Mask:
        there = table.tasks_of(condition)
        return there > 0 if self.together else there == 0

    def describe(self, condition: str, table: NodeTable, row: int, *, ok: bool) -> str:
        return f"{condition.split('/')[-1]} is {'' if ok == self.together else 'not '}there"
