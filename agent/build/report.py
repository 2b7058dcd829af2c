"""What a build says, in the order of its file, while its stages run side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from agent.build.instructions import Step
from agent.build.plan import Stage
from agent.contract.printable import quoted

Tell = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Of a piece of work: what of it, how much is done, how much there is (0: unknown)."""


class Channel:
    """What one stage says. Called, it says what a command wrote."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __call__(self, text: str) -> None:
        self._tell(text)

    def argument(self, number: int, total: int, step: Step) -> None:
        """An ARG before the first stage."""
        self._tell(f"Step {number}/{total} : {quoted(step.at.shown)}\n")

    def step(self, number: int, total: int, stage: Stage, step: Step) -> None:
        """*step*, which may be the FROM of *stage*, begins: the build's *number*th of *total*."""
        del stage
        self._tell(f"Step {number}/{total} : {shown(step)}\n")

    def triggers(self, count: int) -> None:
        """ONBUILD instructions of an image begin."""
        self._tell(f"# Executing {count} build trigger{'s' if count > 1 else ''}\n")

    def cached(self) -> None:
        """The step was known."""
        self._tell(" ---> Using cache\n")

    def running(self, short: str) -> None:
        """The command of the step runs in the container *short*."""
        self._tell(f" ---> Running in {short}\n")

    def removed(self, short: str) -> None:
        """The container *short* is gone."""
        self._tell(f" ---> Removed intermediate container {short}\n")

    def reached(self, short: str) -> None:
        """The step is done, and its state is called *short*."""
        self._tell(f" ---> {short}\n")


class Report:
    """In Docker's words. Stages say things through channels; what one says reaches *tell* when those above it have said all."""

    def __init__(self, tell: Tell, pulled: Callable[[dict[str, object]], None] = lambda _: None) -> None:
        """*pulled* hears what a pull says, in Docker's events."""
        self._tell, self.pulled = tell, pulled
        self._order: list[int] = []
        self._kept: dict[int, list[str]] = {}
        self._ended: set[int] = set()

    def begin(self, stages: Sequence[int]) -> None:
        self._order = list(stages)
        self._kept = {number: [] for number in stages}

    def warn(self, text: str) -> None:
        """Something of no stage's."""
        self._tell(f"[Warning] {text}\n")

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Progress]:
        """Something that is no step is done meanwhile, which Docker's words do not tell of."""
        del name
        yield lambda what, done, total: None

    def channel(self, stage: int) -> Channel:
        def say(text: str) -> None:
            if self._order and self._order[0] == stage:
                self._tell(text)
            elif stage in self._kept:
                self._kept[stage].append(text)

        return Channel(say)

    def end(self, stage: int) -> None:
        """*stage* has nothing more to say."""
        self._ended.add(stage)
        while self._order and self._order[0] in self._ended:
            self._order.pop(0)
            if self._order:
                self._flush(self._order[0])

    def failed(self, stage: int, why: str = "") -> None:
        """What *stage* said is told now, whoever else has not ended."""
        del why
        if self._order and self._order[0] != stage:
            self._flush(stage)

    def _flush(self, stage: int) -> None:
        kept, self._kept[stage] = self._kept[stage], []
        for text in kept:
            self._tell(text)


def shown(step: Step) -> str:
    """An instruction in one line, as it is written."""
    text = step.at.shown
    return quoted(text) if len(text) < 100 else "".join(c if c.isprintable() else " " for c in text)
