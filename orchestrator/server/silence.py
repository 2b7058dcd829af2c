"""Which nodes have been silent for so long that their tasks go to others. Pure: the time is given.

A server that gets no answer from more than half of its nodes takes itself for the one that is cut off, and one that was stopped
itself had no answers: in both cases every node's time of silence starts again when that ends.
Source: Kubernetes, node lifecycle controller (zone outages); SwarmKit, dispatcher (nodes after a change of leaders).
"""

from __future__ import annotations

from collections.abc import Mapping, Set

STALL_S = 5.0
"""A pause between two looks after which this server is taken to have been stopped itself."""

HUNG_S = 30.0
"""How long a node at least is waited for whose machine answers over SSH: its agent hangs or starts, its containers run."""
REACHED_S = 2.0
"""How long a node is silent before it counts among those of which more than half mean that this server is cut off: one that
begins to lead has not reached any yet."""
FLAPS, FLAP_S = 3, 600.0
"""A node that was lost so often within so many seconds takes no tasks of other nodes."""


def patience(after_s: float, machine_answers: bool) -> float:
    """How many seconds without a word make a node lost, where *after_s* do for a dead machine."""
    return max(after_s, HUNG_S) if machine_answers else after_s


class SilenceWatch:
    """Looked at again and again, it says which nodes are lost: silent for *after_s* seconds while this server was well."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._looked_at: float | None = None
        self._well_since = 0.0
        self._isolated_since: float | None = None
        self._lost: frozenset[str] = frozenset()
        self._losses: dict[str, list[float]] = {}

    def lost(self, now: float, silent_since: Mapping[str, float | None], running: Set[str] = frozenset()) -> frozenset[str]:
        """The lost nodes as of *now*. *silent_since* has for each node since when it is silent, None while it answers;
        *running* are those whose machines answer all the same."""
        away = [since for since in silent_since.values() if since is not None and now - since >= REACHED_S]
        if len(away) * 2 <= len(silent_since):
            self._isolated_since = None
        elif self._isolated_since is None:
            self._isolated_since = now
        stalled = self._looked_at is not None and now - self._looked_at > STALL_S
        self._looked_at = now
        if stalled or self._isolated_since is not None:
            self._well_since = now
        before = self._lost
        self._lost = frozenset(
            name
            for name, since in silent_since.items()
            if since is not None and now - max(since, self._well_since) >= patience(self._after_s, name in running)
        )
        for name in self._lost - before:
            self._losses.setdefault(name, []).append(now)
        return self._lost

    def flapping(self, now: float) -> frozenset[str]:
        """The nodes that were lost again and again of late."""
        return frozenset(n for n, at in self._losses.items() if sum(now - t < FLAP_S for t in at[-FLAPS:]) == FLAPS)

    def isolated(self, now: float) -> bool:
        """Whether more than half of all nodes have been silent for so long that they would be lost."""
        return self._isolated_since is not None and now - self._isolated_since >= self._after_s
