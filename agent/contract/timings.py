"""How long things take, counted as Prometheus' histograms are; a count costs two additions."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """How many of what took up to each of *bounds* seconds; those that took longer are in the last of *counts*."""

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """For each bound, how many took up to it: as `HistogramMetricFamily.add_metric` of prometheus_client has them."""
        return list(zip((*map(str, self.bounds), "+Inf"), map(float, accumulate(self.counts)), strict=True))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done meanwhile, whether or not it succeeds."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(time.perf_counter() - began)
