"""Columns of the node table: one value a row, with the operations that filters and costs need.

A column of many rows is a numpy array (`vectors.py`). Loading numpy takes 12 MB and 0.1 s, which a single host can save: there
a column is a PlainColumn, a list with those operators of numpy's that are used here (decision 0024).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

Column = Any
"""Shape (N,): one number for each node; a numpy array or a PlainColumn."""
Mask = Any
"""Shape (N,): one truth value for each node; a numpy array or a PlainColumn."""


class Columns(Protocol):
    """How columns are made, and operations that have no operator."""

    def full(self, rows: int, value: int) -> Column:
        """*value* in every row."""

    def ints(self, values: Iterable[int]) -> Column:
        """Whole numbers; fractions are cut off."""

    def floats(self, values: Iterable[float]) -> Column:
        """Numbers with fractions."""

    def mask(self, values: list[bool]) -> Mask:
        """Truth values."""

    def minimum(self, one: Column, other: Column | int) -> Column:
        """The lower of two columns, or of a column and a number, row by row."""

    def sum_by(self, groups: Column, size: int, values: Column) -> Column:
        """For each row, the sum of *values* over all rows of its group; *groups* are numbers below *size*."""

    def rows_by(self, groups: Column, size: int) -> Sequence[Column]:
        """The rows of each group, in their order; *groups* are numbers below *size*."""

    def count(self, mask: Mask) -> int:
        """How many rows are true."""

    def lowest(self, values: Column, mask: Mask) -> int:
        """The first of the rows with the lowest value where *mask* is true; it must be true somewhere."""


class PlainColumn:
    """A list with numpy's operators, row by row; the other operand is a number or a column of the same length."""

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]  # like numpy's: == compares row by row

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> Any:
        return self.values[row]

    def __setitem__(self, row: int, value: Any) -> None:
        self.values[row] = value

    def copy(self) -> PlainColumn:
        """A copy with the same values."""
        return PlainColumn([*self.values])

    def tolist(self) -> list[Any]:
        """The values as a list of its own."""
        return [*self.values]

    def map(self, function: Callable[[Any, Any], Any], other: Any) -> PlainColumn:
        """*function* of each value and *other*, a column or one value for all."""
        if isinstance(other, PlainColumn):
            return PlainColumn([*map(function, self.values, other.values)])
        return PlainColumn([function(value, other) for value in self.values])

    def __eq__(self, other: object) -> PlainColumn:  # type: ignore[override]
        return self.map(operator.eq, other)

    def __ge__(self, other: Any) -> PlainColumn:
        return self.map(operator.ge, other)

    def __gt__(self, other: Any) -> PlainColumn:
        return self.map(operator.gt, other)

    def __lt__(self, other: Any) -> PlainColumn:
        return self.map(operator.lt, other)

    def __and__(self, other: Any) -> PlainColumn:
        return self.map(operator.and_, other)

    def __add__(self, other: Any) -> PlainColumn:
        return self.map(operator.add, other)

    def __rsub__(self, other: float) -> PlainColumn:
        return PlainColumn([other - value for value in self.values])

    def __mul__(self, other: Any) -> PlainColumn:
        return self.map(operator.mul, other)

    def __floordiv__(self, other: Any) -> PlainColumn:
        return self.map(operator.floordiv, other)

    def __lshift__(self, other: int) -> PlainColumn:
        return self.map(operator.lshift, other)


class PlainColumns:
    """Columns without numpy."""

    def full(self, rows: int, value: int) -> PlainColumn:
        return PlainColumn([value] * rows)

    def ints(self, values: Iterable[int]) -> PlainColumn:
        return PlainColumn([int(v) for v in values])

    def floats(self, values: Iterable[float]) -> PlainColumn:
        return PlainColumn([float(v) for v in values])

    def mask(self, values: list[bool]) -> PlainColumn:
        return PlainColumn(values)

    def minimum(self, one: PlainColumn, other: PlainColumn | int) -> PlainColumn:
        return one.map(min, other)

    def sum_by(self, groups: Sequence[int], size: int, values: Iterable[int]) -> PlainColumn:
        sums = [0] * size
        for group, value in zip(groups, values, strict=True):
            sums[group] += value
        return PlainColumn([sums[group] for group in groups])

    def rows_by(self, groups: Sequence[int], size: int) -> Sequence[PlainColumn]:
        rows: list[list[int]] = [[] for _ in range(size)]
        for row, group in enumerate(groups):
            rows[group].append(row)
        return [PlainColumn(members) for members in rows]

    def count(self, mask: Iterable[bool]) -> int:
        return sum(mask)

    def lowest(self, values: PlainColumn, mask: PlainColumn) -> int:
        return min((row for row, ok in enumerate(mask) if ok), key=lambda row: values[row])
