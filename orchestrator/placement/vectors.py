"""Columns as numpy arrays, for clusters: one operation for thousands of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NEVER = np.iinfo(np.int64).max


class VectorColumns:
    """Columns made of numpy arrays; see `columns.Columns`."""

    def full(self, rows: int, value: int) -> Ints:
        return np.full(rows, value, dtype=np.int64)

    def ints(self, values: Iterable[int] | NDArray[np.generic]) -> Ints:
        if isinstance(values, np.ndarray):
            return values.astype(np.int64)
        return np.array([*values], dtype=np.int64)

    def floats(self, values: Iterable[float]) -> Floats:
        return np.array([*values], dtype=np.float64)

    def mask(self, values: list[bool]) -> Mask:
        return np.array(values, dtype=np.bool_)

    def minimum(self, one: Ints, other: Ints | int) -> Ints:
        return np.minimum(one, other)

    def sum_by(self, groups: Ints, size: int, values: Ints) -> Ints:
        sums = np.bincount(groups, weights=values, minlength=size).astype(np.int64)
        return sums[groups]

    def rows_by(self, groups: Ints, size: int) -> Sequence[Ints]:
        ends = np.cumsum(np.bincount(groups, minlength=size))[:-1]
        return np.split(np.argsort(groups, kind="stable"), ends)

    def count(self, mask: Mask) -> int:
        return int(np.count_nonzero(mask))

    def lowest(self, values: Ints, mask: Mask) -> int:
        return int(np.where(mask, values, _NEVER).argmin())
