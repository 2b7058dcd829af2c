"""Which of the feasible nodes is preferred: the one with the lowest cost, the first of equal ones."""

from __future__ import annotations

from orchestrator.placement.columns import Column
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest

OWN_TASK = 1 << 20
"""The cost of one more task of the same service: more than any number of other tasks."""
_MOST_TASKS, _MOST_OWN, MOST_IN_GROUP = 0xFFFFF, 0xFFFF, 0xFF
SPREAD_SHIFT = 36


def cost(request: PlacementRequest, table: NodeTable) -> Column:
    """Shape (N,): fewest of the service in each spread label's value (outermost first), then on the node, then fewest tasks.

    The criteria are digits of one number, each capped at what fits its place: 8 bits a spread label, 16 bits, 20 bits."""
    columns, own = table.columns, table.tasks_of(request.service)
    total = columns.minimum(own, _MOST_OWN) * OWN_TASK + columns.minimum(table.tasks, _MOST_TASKS)
    shift = SPREAD_SHIFT
    for label in reversed(request.placement.spread):
        groups, size = table.label_groups(label)
        total = total + (columns.minimum(columns.sum_by(groups, size, own), MOST_IN_GROUP) << shift)
        shift += 8
    return total


def own_cost(own: int, tasks: int) -> int:
    """The part of a node's cost that follows what it has itself: *own* tasks of the service, *tasks* in all."""
    return min(own, _MOST_OWN) * OWN_TASK + min(tasks, _MOST_TASKS)


def score(total: int, tasks: int) -> int:
    """A node's cost and its number of tasks as people see them: the highest is the first choice."""
    return -(total // OWN_TASK) * 1000 - tasks
