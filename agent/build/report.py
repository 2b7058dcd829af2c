"""The progress output of a build, in the order of its Dockerfile, while its stages run concurrently."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from agent.build.instructions import Step
from agent.build.plan import Stage
from agent.contract.printable import quoted

Tell = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called for a piece of work with the part's name, how much of it is done, and its total (0: unknown)."""


class Channel:
    """The output of one stage."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __call__(self, text: str) -> None:
        """Add *text*, which a command wrote."""
        self._tell(text)

    def argument(self, number: int, total: int, step: Step) -> None:
        """An ARG before the first stage."""
        self._tell(f"Step {number}/{total} : {quoted(step.at.shown)}\n")

    def step(self, number: int, total: int, stage: Stage, step: Step) -> None:
        """*step*, which may be the FROM of *stage*, begins: the build's *number*th of *total*."""
        del stage
        self._tell(f"Step {number}/{total} : {shown(step)}\n")

    def triggers(self, count: int) -> None:
        """The *count* ONBUILD instructions of an image begin."""
        self._tell(f"# Executing {count} build trigger{'s' if count > 1 else ''}\n")

    def cached(self) -> None:
        """The result of the step came from the cache."""
        self._tell(" ---> Using cache\n")

    def recalled(self) -> None:
        """The step changes no file, and was done before."""
        self.cached()

    def running(self, short: str) -> None:
        """The command of the step runs in the container *short*."""
        self._tell(f" ---> Running in {short}\n")

    def removed(self, short: str) -> None:
        """The container *short* was removed."""
        self._tell(f" ---> Removed intermediate container {short}\n")

    def reached(self, short: str) -> None:
        """The step is done; its state has the short identifier *short*."""
        self._tell(f" ---> {short}\n")


class Report:
    """The classic output of `docker build`. Stages write through channels; the text of one reaches *tell* after all text of the
    stages above it."""

    def __init__(self, tell: Tell, pulled: Callable[[dict[str, object]], None] = lambda _: None) -> None:
        """*pulled* is called with the events of a pull, in the form of Docker's API."""
        self._tell, self.pulled = tell, pulled
        self._order: list[int] = []
        self._kept: dict[int, list[str]] = {}
        self._ended: set[int] = set()

    def begin(self, stages: Sequence[int], platform: str = "") -> None:
        """The build begins, with these *stages* in the order of the file; for *platform*, where it is one of several."""
        if platform:
            self._tell(f"# Building for {platform}\n")
        self._ended = set()
        self._order = list(stages)
        self._kept = {number: [] for number in stages}

    def warn(self, text: str) -> None:
        """A warning that belongs to no stage."""
        self._tell(f"[Warning] {text}\n")

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Progress]:
        """Work other than a step, done in the context; the classic output does not show it."""
        del name
        yield lambda what, done, total: None

    def channel(self, stage: int) -> Channel:
        """The channel of *stage*."""

        def say(text: str) -> None:
            if self._order and self._order[0] == stage:
                self._tell(text)
            elif stage in self._kept:
                self._kept[stage].append(text)

        return Channel(say)

    def end(self, stage: int) -> None:
        """*stage* has ended and writes nothing more."""
        self._ended.add(stage)
        while self._order and self._order[0] in self._ended:
            self._order.pop(0)
            if self._order:
                self._flush(self._order[0])

    def failed(self, stage: int, why: str = "") -> None:
        """*stage* has failed: its text is passed on at once, even if stages above it still run."""
        del why
        if self._order and self._order[0] != stage:
            self._flush(stage)

    def _flush(self, stage: int) -> None:
        kept, self._kept[stage] = self._kept[stage], []
        for text in kept:
            self._tell(text)


def shown(step: Step) -> str:
    """An instruction in one line, as in the file."""
    text = step.at.shown
    return quoted(text) if len(text) < 100 else "".join(c if c.isprintable() else " " for c in text)
