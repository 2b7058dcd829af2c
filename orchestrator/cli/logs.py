"""`pystack logs`"""

from __future__ import annotations

import queue
import sys
import threading
from functools import partial
from typing import Any

import click

from orchestrator.cli.client import Client, demultiplex
from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError

follow_options = partial(stack_options, short=False)  # here -f is --follow, as everywhere
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")


@click.command()
@follow_options
@click.argument("services", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with new output.")
@click.option("-n", "--tail", default="all", help="Lines from the end.")
@click.option("--since", default="", help="RFC 3339 time, or seconds since the epoch.")
@click.option("--until", default="")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--no-log-prefix", is_flag=True)
def logs(
    stack: StackOptions, services: tuple[str, ...], follow: bool, tail: str, since: str, until: str, timestamps: bool,
    no_log_prefix: bool,
) -> None:
    """Output of the stack's tasks; without -f merged in the order of time."""
    follow_stack(
        Client(), stack.name(), services, follow=follow, tail=tail, since=since, until=until, timestamps=timestamps,
        prefix=not no_log_prefix,
    )


def read(client: Client, container: str, **query: Any) -> Any:
    """(stream, text) of one container's output."""
    path = f"{client.base}/containers/{container}/logs"
    reply = client.request("GET", path, query={"stdout": 1, "stderr": 1, **query})
    if "raw" in (reply.getheader("Content-Type") or ""):
        while data := reply.read1(1 << 16):
            yield 1, data
    else:
        yield from demultiplex(reply.read)


def follow_stack(
    client: Client, name: str, services: tuple[str, ...], *, follow: bool, tail: str, since: str = "", until: str = "",
    timestamps: bool = False, prefix: bool = True,
) -> None:
    from orchestrator.cli.tasks import of_stack

    rows = of_stack(client, name, services)
    width = max((len(row["task"]) for row in rows), default=0)
    options = {"tail": tail, "since": since, "until": until, "follow": int(follow)}

    def head(number: int) -> str:
        if not prefix:
            return ""
        return click.style(rows[number]["task"].ljust(width) + " | ", fg=COLOURS[number % len(COLOURS)])

    running = list(enumerate(rows))
    if not follow:
        found: list[tuple[str, int, int, bytes]] = []
        for number, row in running:
            for stream, text in read(client.at(row["node"]), row["id"], **options, timestamps=1):
                for line in text.splitlines(keepends=True):
                    stamp, _, rest = line.partition(b" ")
                    found.append((stamp.decode(errors="replace"), number, stream, rest))
        for stamp, number, stream, text in sorted(found, key=lambda item: item[0]):
            _write(head(number), stamp + " " if timestamps else "", text, stream)
        return
    arrived: queue.Queue[tuple[int, int, bytes] | None] = queue.Queue()

    def pump(number: int, client: Client, container: str) -> None:
        try:
            for stream, text in read(client, container, **options, timestamps=int(timestamps)):
                arrived.put((number, stream, text))
        except PystackError:
            pass
        arrived.put(None)

    for number, row in running:
        threading.Thread(target=pump, args=(number, client.at(row["node"]), row["id"]), daemon=True).start()
    left = len(running)
    while left:
        item = arrived.get()
        if item is None:
            left -= 1
            continue
        number, stream, text = item
        for line in text.splitlines(keepends=True):
            _write(head(number), "", line, stream)


def _write(prefix: str, stamp: str, text: bytes, stream: int) -> None:
    out = sys.stdout if stream == 1 else sys.stderr
    click.echo(prefix + stamp, nl=False, file=out)
    out.flush()
    out.buffer.write(text if text.endswith(b"\n") else text + b"\n")
    out.buffer.flush()
