"""`pystack logs`"""

from __future__ import annotations

import contextlib
import heapq
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent.contract.frames import FrameDecoder, FrameError
from orchestrator.cli.client import Client
from orchestrator.cli.options import StackOptions, Timestamp, long_stack_options, stream_format_option
from orchestrator.errors import PystackError, UnreachableError

if TYPE_CHECKING:
    from orchestrator.server.api.stacks import TaskRow

SETTLED_S = 0.5
"""A container that ended, and does not run or begin so long after it, is taken not to begin again."""
LIVE = ("running", "starting", "restarting", "stopping", "paused")
"""The states in which more output may come."""
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")


class LogOptions(NamedTuple):
    """What `logs` shows, and how. *tail* is a number of lines or "all"; *since* and *until* are seconds since the epoch or RFC
    3339 times, "" for no limit; *shape* is table or json; *replica* is the number of the only one shown, 0 for all. With
    *follow* new output is shown as it comes. A *project* is left out of names, as Docker Compose does."""

    follow: bool = False
    tail: str = "all"
    since: str = ""
    until: str = ""
    timestamps: bool = False
    prefix: bool = True
    shape: str = "table"
    colour: bool = True
    replica: int = 0
    project: str = ""


@click.command()
@long_stack_options
@click.argument("services", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with new output.")
@click.option("-n", "--tail", default="all", help="Lines from the end.")
@click.option("--since", type=Timestamp(), default="", help="How long ago (10m), RFC 3339 time, or seconds since the epoch.")
@click.option("--until", type=Timestamp(), default="", help="The same.")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--no-log-prefix", is_flag=True)
@click.option("--no-color", is_flag=True, help="Names of tasks without colours.")
@click.option("--index", default=0, help="Which replica of one service.")
@stream_format_option
def logs(
    stack: StackOptions,
    services: tuple[str, ...],
    follow: bool,
    tail: str,
    since: str,
    until: str,
    timestamps: bool,
    no_log_prefix: bool,
    no_color: bool,
    index: int,
    shape: str,
) -> None:
    """Output of the stack's tasks; without -f merged in the order of time."""
    options = LogOptions(
        follow=follow,
        tail=tail,
        since=since,
        until=until,
        timestamps=timestamps,
        prefix=not no_log_prefix,
        shape=shape,
        colour=not no_color,
        replica=index,
    )
    follow_stack(Client(), stack.name(), services, options)


def read(client: Client, container: str, **query: Any) -> Iterator[tuple[int, bytes]]:
    """(stream, text) of one container's output, a line or a part of one each; with marks=1, (0, b"") where the past ends."""
    path = f"{client.base}/containers/{container}/logs"
    reply = client.request("GET", path, query={"stdout": 1, "stderr": 1, **query})
    try:
        raw, decoder = "raw" in reply.getheader("Content-Type"), FrameDecoder()
        while data := reply.read1(1 << 16):
            if raw:
                yield 1, data
            else:
                yield from decoder.feed(data)
    except (OSError, FrameError) as error:
        raise UnreachableError(f"the output of {container} ended too soon: {error}") from error


class _LogLine(NamedTuple):
    """A line or a part of one. *order* is the latest time that its task's lines had so far: a clock that was set back does not
    change a task's own order."""

    order: str
    task: str
    stamp: str
    stream: int
    text: bytes


class _End(NamedTuple):
    """The source of a container ended."""

    source: _Source


_Arrivals = queue.SimpleQueue[_LogLine | dict[str, Any] | _End]
"""Lines, events of new containers, and the end of each source."""


class _Source:
    """The output of one container: what it put out until now, and what it puts out from then on. *after* is the time of the
    last line that is known of it, "" for none."""

    def __init__(self, task: str, container: str, stream: Iterator[tuple[int, bytes]], after: str = "") -> None:
        self.task = task
        self.container = container
        self.ended = False
        self._stream = stream
        self._after = after
        self._latest = ""

    @property
    def latest(self) -> str:
        """The time of its last line so far."""
        return max(self._latest, self._after)

    def past(self) -> Iterator[_LogLine]:
        for stream, text in self._stream:
            if not stream:
                return
            yield self._line(stream, text)
        self.ended = True

    def future(self) -> Iterator[_LogLine]:
        for stream, text in self._stream:
            if stream and (line := self._line(stream, text)).stamp > self._after:
                yield line

    def _line(self, stream: int, text: bytes) -> _LogLine:
        stamp, _, rest = text.partition(b" ")
        when = stamp.decode(errors="replace")
        self._latest = max(self._latest, when)
        return _LogLine(self._latest, self.task, when, stream, rest)


def follow_stack(
    client: Client,
    name: str,
    services: tuple[str, ...],
    options: LogOptions,
    ended: Callable[[str], None] = lambda _: None,
) -> None:
    """Output of a stack's tasks: what there is, in the order of time; and, to follow, what comes until all have ended, of
    tasks that begin meanwhile too. As lines, or, in the shape json, as objects with task, time, stream and line. *ended* is
    called with each task that is followed, after its last line."""
    from orchestrator.cli.rows import tasks
    from orchestrator.cli.selection import not_running, of_stack

    printer = (
        _JsonPrinter()
        if options.shape == "json"
        else _LinePrinter(prefix=options.prefix, timestamps=options.timestamps, colour=options.colour, project=options.project)
    )
    arrived: _Arrivals = queue.SimpleQueue()
    query: dict[str, Any] = {"tail": options.tail, "since": options.since, "until": options.until, "timestamps": 1}
    if options.follow:
        threading.Thread(target=_watch_new_containers, args=(client, name, services, arrived), daemon=True).start()
        query |= {"follow": 1, "marks": 1}

    def source(task: str, node: str, container: str, after: str = "") -> _Source:
        wanted = query | ({"since": after, "tail": "all"} if after else {})
        return _Source(task, container, read(client.at(node), container, **wanted), after)

    def live() -> list[TaskRow]:
        """The tasks of which more may come: a container that is restarted ends, and begins again."""
        return [
            row
            for row in tasks(client, name)
            if row["state"] in LIVE and (not services or row["service"] in services) and options.replica in (0, row["index"])
        ]

    if options.replica and len(services) != 1:
        raise click.UsageError("--index is of one service: name it")
    rows = of_stack(client, name, services, options.replica)
    if options.replica and not rows:
        raise not_running(services[0], options.replica)
    printer.names = {row["task"]: short_name(row, options.project) for row in rows} if options.project else {}
    for row in rows:
        printer.expect(row["task"])
    sources = [source(row["task"], row["node"], row["id"]) for row in rows]
    known = {one.container: one for one in sources}
    for line in heapq.merge(*(s.past() for s in sources), key=lambda line: line.order):
        printer.line(line.task, line.stamp, line.text, line.stream)
    if options.follow:
        printer.flush()
        for one in sources:
            if one.ended:
                ended(one.task)
        _Following(printer, arrived, known, source, ended, live).print_it()
    printer.finish()


class _Following(NamedTuple):
    """What the sources *known*, by container, put out from now on. *begun* makes the source of a container that begins, or
    begins again, of its task, node, ID, and the time of the last line that was printed. *ended* is called with a task when all
    that its container put out is printed; *live* says which run, or may again."""

    printer: _LinePrinter
    arrived: _Arrivals
    known: dict[str, _Source]
    begun: Callable[[str, str, str, str], _Source]
    ended: Callable[[str], None]
    live: Callable[[], list[TaskRow]]

    def print_it(self) -> None:
        """Print it as it comes, until all have ended."""
        for one in list(self.known.values()):
            if not one.ended:
                self._start(one)
        while True:
            try:
                item = self.arrived.get(timeout=None if any(not one.ended for one in self.known.values()) else SETTLED_S)
            except queue.Empty:
                rows = self.live()
                for row in rows:
                    self._join(row["task"], row["node"], row["id"], row["state"])
                if not rows:
                    return
                continue
            self._take(item)
            if self.arrived.empty():
                self.printer.flush()

    def _take(self, item: _LogLine | dict[str, Any] | _End) -> None:
        if isinstance(item, _End):
            item.source.ended = True
            self.printer.flush()
            self.ended(item.source.task)
        elif isinstance(item, dict):
            self._join(item["task"], item["node"], item["container"], item["state"])
        else:
            self.printer.line(item.task, item.stamp, item.text, item.stream)

    def _join(self, task: str, node: str, container: str, state: str) -> None:
        """Follow *container* too, unless it is followed, or has ended."""
        before = self.known.get(container)
        if before is None or (before.ended and state == "running"):
            self._start(self.begun(task, node, container, before.latest if before else ""))

    def _start(self, one: _Source) -> None:
        self.known[one.container] = one
        threading.Thread(target=self._pump, args=(one,), daemon=True).start()

    def _pump(self, one: _Source) -> None:
        with contextlib.suppress(PystackError):  # its node or the server went: the others are followed on
            for line in one.future():
                self.arrived.put(line)
        self.arrived.put(_End(one))


def _watch_new_containers(client: Client, name: str, services: tuple[str, ...], arrived: _Arrivals) -> None:
    """Put the event of each container of the stack that runs or ended into *arrived*."""
    try:
        for event in client.lines("GET", "/v1/events"):
            mine = event.get("stack") == name and (not services or event["service"] in services)
            if mine and event.get("container") and event["state"] in ("running", "exited"):
                arrived.put(event)
    except PystackError:
        pass  # the server went: what is followed goes on as long as it can


def short_name(row: TaskRow, project: str) -> str:
    """The name of a task's container, within its project unless the file names it."""
    return row["container_name"].removeprefix(f"{project}-")


class _LinePrinter:
    """Lines on their way out, each under its task's name; written in large pieces."""

    def __init__(self, *, prefix: bool, timestamps: bool, colour: bool = True, project: str = "") -> None:
        self._prefix, self._timestamps, self._colour = prefix, timestamps, colour
        self._project = project
        self.names: dict[str, str] = {}
        """What the tasks are called, where that is neither their own name nor that within the project."""
        self._colours: dict[str, str] = {}
        self._width = 0
        self._pending: list[tuple[int, bytes]] = []
        self._begun: dict[tuple[str, int], tuple[str, bytes]] = {}
        self._size = 0

    def expect(self, task: str) -> None:
        """Give it a colour, and its name room."""
        if task not in self._colours:
            self._colours[task] = COLOURS[len(self._colours) % len(COLOURS)]
            self._width = max(self._width, len(self._label(task)))

    def _label(self, task: str) -> str:
        """What stands before the task's lines."""
        return f"{self.names.get(task) or task.removeprefix(f'{self._project}-')} " if self._project else task

    def line(self, task: str, stamp: str, text: bytes, stream: int) -> None:
        """A line, or a part of one: a long line, or one that was on its way when the log was read, comes in pieces."""
        stamp, before = self._begun.pop((task, stream), (stamp, b""))
        text = before + text
        if not text.endswith(b"\n"):
            self._begun[task, stream] = stamp, text
            return
        self.whole(task, stamp, text, stream)

    def whole(self, task: str, stamp: str, text: bytes, stream: int) -> None:
        """A line that has its end."""
        self.expect(task)
        head = click.style(self._label(task).ljust(self._width) + " | ", fg=self._colours[task]) if self._prefix else ""
        if not self._colour or not (sys.stdout if stream == 1 else sys.stderr).isatty():
            head = click.unstyle(head)
        self.send(stream, (head + (f"{stamp} " if self._timestamps else "")).encode() + text)

    def send(self, stream: int, text: bytes) -> None:
        self._pending.append((stream, text))
        self._size += len(text)
        if self._size > 1 << 16:
            self.flush()

    def finish(self) -> None:
        """The last lines, which nothing ended."""
        for task, stream in list(self._begun):
            self.line(task, "", b"\n", stream)
        self.flush()

    def flush(self) -> None:
        for stream in (1, 2):
            if data := b"".join(text for of, text in self._pending if of == stream):
                out = sys.stdout if stream == 1 else sys.stderr
                out.flush()
                out.buffer.write(data)
                out.buffer.flush()
        self._pending, self._size = [], 0


class _JsonPrinter(_LinePrinter):
    """Lines as one JSON object each, all of them on the standard output."""

    def __init__(self) -> None:
        super().__init__(prefix=False, timestamps=True)

    def whole(self, task: str, stamp: str, text: bytes, stream: int) -> None:
        line = text.decode(errors="replace").removesuffix("\n")
        what = {"task": task, "time": stamp, "stream": "stdout" if stream == 1 else "stderr", "line": line}
        self.send(1, json.dumps(what, ensure_ascii=False).encode() + b"\n")
