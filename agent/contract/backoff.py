"""The pauses between tries of something that fails: longer and longer, up to a limit."""

from __future__ import annotations

import random


class Backoff:
    """An endless iterator of pauses in seconds: *first_s*, then *factor* times the one before, *most_s* at the most.

    With *jitter*, each pause is shortened at random by up to that share of it, so that many that failed together do not all try
    again together."""

    def __init__(self, first_s: float, most_s: float, *, factor: float = 2.0, jitter: float = 0.0) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self.factor = factor
        self.jitter = jitter
        self._next_s = first_s

    def __iter__(self) -> Backoff:
        return self

    def __next__(self) -> float:
        pause_s = min(self._next_s, self.most_s)
        self._next_s = pause_s * self.factor
        return pause_s * random.uniform(1.0 - self.jitter, 1.0)

    def reset(self) -> None:
        """Begin with *first_s* again: a try has succeeded."""
        self._next_s = self.first_s
