"""What a build says, as BuildKit's clients draw it: steps that begin and end, how far transfers are, what commands write.

Source: BuildKit, api/services/control/control.proto, StatusResponse; frontend/dockerfile/dockerfile2llb (how steps are named).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from agent.build.instructions import Copy, From, Run, Step, Workdir
from agent.build.plan import Stage
from agent.build.report import Channel, Progress, Report, shown
from agent.buildkit.messages import Status, Timestamp, Vertex, VertexLog, VertexStatus, VertexWarning
from agent.errors import user_message

Hear = Callable[[Status], None]
COUNTED = (From, Run, Copy, Workdir)
"""Steps that change files: the others are not told of, as in BuildKit."""
EVERY_S = 0.1
"""Seconds between two words on the same transfer."""


def now() -> Timestamp:
    """This moment."""
    nanos = time.time_ns()
    return Timestamp(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _identity() -> str:
    return f"sha256:{secrets.token_hex(32)}"


class Work:
    """One step of the drawing."""

    def __init__(self, hear: Hear, name: str) -> None:
        self._hear, self._name, self._ident = hear, name, _identity()
        self._began = now()
        self._cached = False
        self._told: dict[str, float] = {}
        hear(Status(vertexes=(self._vertex(),)))

    def _vertex(self, completed: Timestamp | None = None, error: str = "") -> Vertex:
        return Vertex(
            digest=self._ident, name=self._name, started=self._began, completed=completed, cached=self._cached, error=error
        )

    def said(self, text: str) -> None:
        """A command wrote *text*."""
        log = VertexLog(vertex=self._ident, timestamp=now(), stream=1, msg=text.encode("utf-8", "surrogateescape"))
        self._hear(Status(logs=(log,)))

    def progress(self, what: str, done: int, total: int) -> None:
        """*what* is *done* of *total* bytes."""
        when = time.monotonic()
        if done and when - self._told.get(what, 0.0) < EVERY_S and done != total:
            return
        self._told[what] = when
        status = VertexStatus(id=what, vertex=self._ident, name=what, current=done, total=total, timestamp=now())
        status.started = self._began
        status.completed = now() if total and done >= total else None
        self._hear(Status(statuses=(status,)))

    def cached(self) -> None:
        """It was done before."""
        self._cached = True

    def end(self, error: str = "") -> None:
        """It is done, or failed with *error*."""
        self._hear(Status(vertexes=(self._vertex(now(), error),)))


class VertexChannel(Channel):
    """One stage's steps, one after the other."""

    def __init__(self, hear: Hear, many: bool) -> None:
        super().__init__(self._say)
        self._hear, self._many = hear, many
        self._work: Work | None = None
        self._count = 0

    def _say(self, text: str) -> None:
        if self._work:
            self._work.said(text)

    def argument(self, number: int, total: int, step: Step) -> None:
        """Not told of."""

    def step(self, number: int, total: int, stage: Stage, step: Step) -> None:
        """A step that changes files is told of, with its place among those of its stage."""
        if not isinstance(step, COUNTED) or (isinstance(step, From) and stage.base >= 0):
            return
        self._count += 1
        of = (stage.base < 0) + sum(isinstance(s, COUNTED) for s in stage.steps)
        name = f"{stage.name or f'stage-{stage.number}'} " if self._many else ""
        self._work = Work(self._hear, f"[{name}{self._count}/{of}] {shown(step)}")

    def triggers(self, count: int) -> None:
        """ONBUILD instructions are part of FROM."""

    def cached(self) -> None:
        """The step was known."""
        if self._work:
            self._work.cached()

    def running(self, short: str) -> None:
        """Not told of."""

    def removed(self, short: str) -> None:
        """Not told of."""

    def reached(self, short: str) -> None:
        """The step is done."""
        self.over("")

    def over(self, error: str) -> None:
        """The step that is under way ends."""
        if self._work:
            self._work.end(error)
        self._work = None


class VertexReport(Report):
    """For whoever hears of statuses."""

    def __init__(self, hear: Hear) -> None:
        super().__init__(lambda _: None)
        self._hear = hear
        self._channels: dict[int, VertexChannel] = {}
        self._stages: Sequence[int] = ()

    def begin(self, stages: Sequence[int]) -> None:
        """These *stages* are needed."""
        self._stages = stages

    def warn(self, text: str) -> None:
        """As a step's warning, which clients count at the end."""
        work = Work(self._hear, "[internal] check the build's arguments")
        self._hear(Status(warnings=(VertexWarning(vertex=work._ident, level=1, short=text.encode()),)))
        work.end()

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Progress]:
        """A step that the file does not name."""
        work = Work(self._hear, name)
        try:
            yield work.progress
        except BaseException as error:
            work.end(user_message(error))
            raise
        work.end()

    def channel(self, stage: int) -> VertexChannel:
        """That of *stage*."""
        if stage not in self._channels:
            self._channels[stage] = VertexChannel(self._hear, len(self._stages) > 1)
        return self._channels[stage]

    def end(self, stage: int) -> None:
        """*stage* has nothing more to say."""

    def failed(self, stage: int, why: str = "") -> None:
        """Its step ends with an error."""
        self.channel(stage).over(why)
