"""What a build says, in the order of its file, while its stages run side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Tell = Callable[[str], None]


class Report:
    """Stages say things through channels; what one says reaches *tell* when those above it have said all."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._order: list[int] = []
        self._kept: dict[int, list[str]] = {}
        self._ended: set[int] = set()

    def begin(self, stages: Sequence[int]) -> None:
        """These *stages* will speak, in this order."""
        self._order = list(stages)
        self._kept = {number: [] for number in stages}

    def say(self, text: str) -> None:
        """Something of no stage's."""
        self._tell(text)

    def channel(self, stage: int) -> Tell:
        """What takes the texts of *stage*."""

        def say(text: str) -> None:
            if self._order and self._order[0] == stage:
                self._tell(text)
            elif stage in self._kept:
                self._kept[stage].append(text)

        return say

    def end(self, stage: int) -> None:
        """*stage* has nothing more to say."""
        self._ended.add(stage)
        while self._order and self._order[0] in self._ended:
            self._order.pop(0)
            if self._order:
                self._flush(self._order[0])

    def failed(self, stage: int) -> None:
        """What *stage* said is told now, whoever else has not ended."""
        if self._order and self._order[0] != stage:
            self._flush(stage)

    def _flush(self, stage: int) -> None:
        kept, self._kept[stage] = self._kept[stage], []
        for text in kept:
            self._tell(text)
