"""Stops tasks that must not run twice while the control plane does not acknowledge this node.

The node says a numbered beat now and then, and the control plane answers with its number. The lease of this node's strict tasks
ends LEASE_S after it *sent* the last beat that was answered: the control plane got it later than that, and starts such tasks
elsewhere only after `STRICT_SILENCE_S` of silence since. No clock is compared with another; both need only run equally fast. A
lease that has ended starts again with a manifest alone, which says whose the tasks are by now. The answer to an acknowledgement
says that it has ended, and so asks for one.
Source: Gray and Cheriton, Leases (1989).
"""

from __future__ import annotations

from collections.abc import Callable

from agent.contract.task import LEASE_S

KEPT_BEATS = 64
"""Beats whose answers may still come."""


class LeaseFence:
    """*clock* gives seconds, and does not go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent: dict[int, float] = {}
        self._count = 0
        self._ends: float | None = None
        self._ended = False

    def beat(self) -> int:
        """The number of a beat that is said now."""
        self._count += 1
        self._sent[self._count] = self._clock()
        self._sent.pop(self._count - KEPT_BEATS, None)
        return self._count

    def answered(self, number: int) -> None:
        """The control plane has acknowledged the beat *number*."""
        if (sent := self._sent.get(number)) is not None and self._ends is not None:
            self._ends = max(self._ends, sent + LEASE_S)

    def taken_over(self) -> None:
        """A manifest came: the tasks in it are this node's."""
        self._ends = self._clock() + LEASE_S
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether strict tasks must not run here now."""
        if self._ends is not None and self._clock() > self._ends:
            self._ended = True
        return self._ended
