"""The nodes for equal copies of one request, the cheapest first: each copy changes little, and needs no look at all of them."""

from __future__ import annotations

import numpy as np

from orchestrator.placement.cost import MOST_IN_GROUP, SPREAD_SHIFT, cost, own_cost
from orchestrator.placement.feasibility import Feasibility

_NEVER = 1 << 62
"""More than any cost: those of three labels have 60 bits."""


class Ranking:
    """For a request whose copies alone are committed meanwhile, and that spreads by at most three labels.

    A copy changes whether its own node can take another, as filters look at what a node has and at no other; the cost of that
    node; and the cost of all nodes that share a value of a spread label with it."""

    def __init__(self, feasibility: Feasibility) -> None:
        request, table = feasibility.request, feasibility.table
        self._feasibility, self._request, self._table = feasibility, request, table
        own = table.tasks_of(request.service)
        self._keys = np.where(feasibility.mask(), cost(request, table), _NEVER)
        self._spreads = []
        for digit, label in enumerate(reversed(request.placement.spread)):
            groups, size = table.label_groups(label)
            sums = np.bincount(groups, weights=own, minlength=size).astype(np.int64).tolist()
            self._spreads.append((groups, table.label_rows(label), sums, 1 << (SPREAD_SHIFT + 8 * digit)))

    def lowest(self) -> int | None:
        """The row of the cheapest node that can take one more copy, the first of equal ones; None where there is none."""
        row = int(self._keys.argmin())
        return row if self._keys[row] < _NEVER else None

    def count(self, row: int) -> None:
        """One copy more was committed to *row*."""
        for groups, rows, sums, step in self._spreads:
            value = groups[row]
            if sums[value] < MOST_IN_GROUP:
                self._keys[rows[value]] += step
            sums[value] += 1
        if not self._feasibility.fits(row):
            self._keys[row] = _NEVER
            return
        own, tasks = self._table.count_of(self._request.service, row), int(self._table.tasks[row])
        self._keys[row] += own_cost(own, tasks) - own_cost(own - 1, tasks - self._request.tasks)
