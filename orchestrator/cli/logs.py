"""`pystack logs`"""

from __future__ import annotations

import json
import queue
import sys
import threading
from typing import Any

import click

from orchestrator.cli.client import Client, demultiplex
from orchestrator.cli.options import Moment, StackOptions, long_stack_options, stream_format_option
from orchestrator.errors import PystackError, Unreachable

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")


@click.command()
@long_stack_options
@click.argument("services", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with new output.")
@click.option("-n", "--tail", default="all", help="Lines from the end.")
@click.option("--since", type=Moment(), default="", help="How long ago (10m), RFC 3339 time, or seconds since the epoch.")
@click.option("--until", type=Moment(), default="", help="The same.")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--no-log-prefix", is_flag=True)
@stream_format_option
def logs(
    stack: StackOptions, services: tuple[str, ...], follow: bool, tail: str, since: str, until: str, timestamps: bool,
    no_log_prefix: bool, shape: str,
) -> None:
    """Output of the stack's tasks; without -f merged in the order of time."""
    follow_stack(
        Client(), stack.name(), services, follow=follow, tail=tail, since=since, until=until, timestamps=timestamps,
        prefix=not no_log_prefix, shape=shape,
    )


def read(client: Client, container: str, **query: Any) -> Any:
    """(stream, text) of one container's output."""
    path = f"{client.base}/containers/{container}/logs"
    reply = client.request("GET", path, query={"stdout": 1, "stderr": 1, **query})
    try:
        if "raw" in reply.getheader("Content-Type"):
            while data := reply.read1(1 << 16):
                yield 1, data
        else:
            yield from demultiplex(reply.read)
    except OSError as error:
        raise Unreachable(f"the output of {container} ended too soon: {error}") from error


def follow_stack(
    client: Client, name: str, services: tuple[str, ...], *, follow: bool, tail: str, since: str = "", until: str = "",
    timestamps: bool = False, prefix: bool = True, shape: str = "table",
) -> None:
    """Output of a stack's tasks: what there is, in the order of time; and, to *follow*, what comes until all have ended, of
    tasks that begin meanwhile too. As lines, or, in the *shape* json, as objects with task, time, stream and line."""
    from orchestrator.cli.tasks import of_stack

    talk = _Objects() if shape == "json" else _Talk(prefix=prefix, timestamps=timestamps)
    arrived: queue.SimpleQueue[tuple[str, int, bytes] | dict[str, Any] | None] = queue.SimpleQueue()
    if follow:
        threading.Thread(target=_hear, args=(client, name, services, arrived), daemon=True).start()
    rows = of_stack(client, name, services)
    for row in rows:
        talk.expect(row["task"])
    found: list[tuple[str, str, int, str, bytes]] = []
    last: dict[str, str] = {}
    for row in rows:
        latest = ""
        for stream, text in read(client.at(row["node"]), row["id"], tail=tail, since=since, until=until, timestamps=1):
            for line in text.splitlines(keepends=True):
                stamp, _, rest = line.partition(b" ")
                last[row["task"]] = stamp.decode(errors="replace")
                latest = max(latest, last[row["task"]])  # a clock that was set back does not change a task's own order
                found.append((latest, row["task"], stream, last[row["task"]], rest))
    for _, task, stream, when, text in sorted(found, key=lambda item: item[0]):
        talk.line(task, when, text, stream)
    if not follow:
        return talk.finish()
    talk.flush()

    def pump(task: str, node: Client, container: str, after: str) -> None:
        try:
            for stream, text in read(node, container, tail="all", since=after or since, until=until, follow=1, timestamps=1):
                for line in text.splitlines(keepends=True):
                    if line.partition(b" ")[0].decode(errors="replace") > after:
                        arrived.put((task, stream, line))
        except PystackError:
            pass
        arrived.put(None)

    known, left = set[str](), 0

    def begin(task: str, node: str, container: str) -> None:
        nonlocal left
        if container not in known:
            known.add(container)
            left += 1
            threading.Thread(target=pump, args=(task, client.at(node), container, last.get(task, "")), daemon=True).start()

    for row in rows:
        begin(row["task"], row["node"], row["id"])
    while left:
        item = arrived.get()
        if item is None:
            left -= 1
        elif isinstance(item, dict):
            begin(item["task"], item["node"], item["container"])
        else:
            stamp, _, rest = item[2].partition(b" ")
            talk.line(item[0], stamp.decode(errors="replace"), rest, item[1])
        if arrived.empty():
            talk.flush()
    talk.finish()


def _hear(client: Client, name: str, services: tuple[str, ...], arrived: queue.SimpleQueue[Any]) -> None:
    """Tell of each container of the stack that runs."""
    try:
        for event in client.lines("GET", "/v1/events"):
            mine = event.get("stack") == name and (not services or event["service"] in services)
            if mine and event.get("container") and event["state"] in ("running", "exited"):
                arrived.put(event)
    except PystackError:
        pass  # the server went: what is followed goes on as long as it can


class _Talk:
    """Lines on their way out, each under its task's name; written in large pieces."""

    def __init__(self, *, prefix: bool, timestamps: bool) -> None:
        self._prefix, self._timestamps = prefix, timestamps
        self._colours: dict[str, str] = {}
        self._width = 0
        self._pending: list[tuple[int, bytes]] = []
        self._begun: dict[tuple[str, int], tuple[str, bytes]] = {}
        self._size = 0

    def expect(self, task: str) -> None:
        """Give it a colour, and its name room."""
        if task not in self._colours:
            self._colours[task] = COLOURS[len(self._colours) % len(COLOURS)]
            self._width = max(self._width, len(task))

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
        head = click.style(task.ljust(self._width) + " | ", fg=self._colours[task]) if self._prefix else ""
        if not (sys.stdout if stream == 1 else sys.stderr).isatty():
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


class _Objects(_Talk):
    """Lines as one JSON object each, all of them on the standard output."""

    def __init__(self) -> None:
        super().__init__(prefix=False, timestamps=True)

    def whole(self, task: str, stamp: str, text: bytes, stream: int) -> None:
        line = text.decode(errors="replace").removesuffix("\n")
        what = {"task": task, "time": stamp, "stream": "stdout" if stream == 1 else "stderr", "line": line}
        self.send(1, json.dumps(what, ensure_ascii=False).encode() + b"\n")
