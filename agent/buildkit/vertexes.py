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

Emit = Callable[[Status], None]
COUNTED = (From, Run, Copy, Workdir)
"""Steps that change files: the others are not reported, as in BuildKit."""
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

    def __init__(self, emit: Emit, name: str) -> None:
        self._emit, self._name, self.ident = emit, name, _identity()
        self._began = now()
        self._cached = False
        self._reported: dict[str, float] = {}
        emit(Status(vertexes=(self._vertex(),)))

    def _vertex(self, completed: Timestamp | None = None, error: str = "") -> Vertex:
        return Vertex(
            digest=self.ident, name=self._name, started=self._began, completed=completed, cached=self._cached, error=error
        )

    def log(self, text: str) -> None:
        """A command wrote *text*."""
        log = VertexLog(vertex=self.ident, timestamp=now(), stream=1, msg=text.encode("utf-8", "surrogateescape"))
        self._emit(Status(logs=(log,)))

    def progress(self, what: str, done: int, total: int) -> None:
        """*what* is *done* of *total* bytes."""
        when = time.monotonic()
        if done and when - self._reported.get(what, 0.0) < EVERY_S and done != total:
            return
        self._reported[what] = when
        status = VertexStatus(id=what, vertex=self.ident, name=what, current=done, total=total, timestamp=now())
        status.started = self._began
        status.completed = now() if total and done >= total else None
        self._emit(Status(statuses=(status,)))

    def cached(self) -> None:
        """It was done before."""
        self._cached = True

    def end(self, error: str = "") -> None:
        """It is done, or failed with *error*."""
        self._emit(Status(vertexes=(self._vertex(now(), error),)))


class VertexChannel(Channel):
    """One stage's steps, one after the other."""

    def __init__(self, emit: Emit, many: bool, platform: str) -> None:
        super().__init__(self._say)
        self._emit, self._many, self._platform = emit, many, f"{platform} " if platform else ""
        self._work: Work | None = None
        self._count = 0

    def _say(self, text: str) -> None:
        if self._work:
            self._work.log(text)

    def argument(self, number: int, total: int, step: Step) -> None:
        """Not reported."""

    def step(self, number: int, total: int, stage: Stage, step: Step) -> None:
        """A step that changes files is reported, with its place among those of its stage."""
        if not isinstance(step, COUNTED) or (isinstance(step, From) and stage.base >= 0):
            return
        self._count += 1
        of = (stage.base < 0) + sum(isinstance(s, COUNTED) for s in stage.steps)
        name = f"{stage.name or f'stage-{stage.number}'} " if self._many else ""
        self._work = Work(self._emit, f"[{self._platform}{name}{self._count}/{of}] {shown(step)}")

    def triggers(self, count: int) -> None:
        """ONBUILD instructions are part of FROM."""

    def cached(self) -> None:
        """The step was known."""
        if self._work:
            self._work.cached()

    def recalled(self) -> None:
        """Such a step is not shown."""

    def running(self, short: str) -> None:
        """Not reported."""

    def removed(self, short: str) -> None:
        """Not reported."""

    def reached(self, short: str) -> None:
        """The step is done."""
        self.over("")

    def over(self, error: str) -> None:
        """The step that is under way ends."""
        if self._work:
            self._work.end(error)
        self._work = None


class VertexReport(Report):
    """Reports the statuses of a build."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(lambda _: None)
        self._emit = emit
        self._channels: dict[int, VertexChannel] = {}
        self._stages: Sequence[int] = ()
        self._platform = ""

    def begin(self, stages: Sequence[int], platform: str = "") -> None:
        """These *stages* are needed, for one *platform* of several or for all that there is."""
        self._stages, self._platform, self._channels = stages, platform, {}

    def warn(self, text: str) -> None:
        """As a step's warning, which clients count at the end."""
        work = Work(self._emit, "[internal] check the build's arguments")
        self._emit(Status(warnings=(VertexWarning(vertex=work.ident, level=1, short=text.encode()),)))
        work.end()

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[Progress]:
        """A step that the file does not name."""
        work = Work(self._emit, name)
        try:
            yield work.progress
        except BaseException as error:
            work.end(user_message(error))
            raise
        work.end()

    def channel(self, stage: int) -> VertexChannel:
        """That of *stage*."""
        if stage not in self._channels:
            self._channels[stage] = VertexChannel(self._emit, len(self._stages) > 1, self._platform)
        return self._channels[stage]

    def end(self, stage: int) -> None:
        """*stage* has nothing more to say."""

    def failed(self, stage: int, why: str = "") -> None:
        """Its step ends with an error."""
        self.channel(stage).over(why)
