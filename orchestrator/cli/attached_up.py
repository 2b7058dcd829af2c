"""`up --attach`: the stack's output, until it is interrupted or its containers end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.logs import LogOptions, follow_stack, short_name
from orchestrator.cli.selection import of_stack
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.attach_options import Attach
    from orchestrator.cli.client import Client
    from orchestrator.server.api.stacks import TaskRow
    from orchestrator.server.events import TaskEvent


def run_attached(
    client: Client,
    name: str,
    services: tuple[str, ...],
    attach: Attach,
    *,
    stop: Callable[[], None],
    since: str,
    first: TaskEvent | None = None,
) -> int:
    """Show the output of the services `attach.shown` since then until the containers of *services* end. *stop* is called
    where `attach.ends` lets one container end all. Returns the exit status of the command.

    *since* is an RFC 3339 time. *first* is the status of a container that ended before all had begun."""
    rows = of_stack(client, name, services)
    project = name if click.get_current_context().meta.get("compose") else ""
    options = LogOptions(follow=True, since=since, project=project, **attach.style)
    reported = [short_name(r["task"], name) for r in rows if project and r["service"] in attach.shown]
    if reported:
        click.echo(f"Attaching to {', '.join(reported)}")
    talker = threading.Thread(target=follow_stack, args=(client, name, attach.shown, options), daemon=True)
    if attach.shown:
        talker.start()
    ended: queue.Queue[tuple[TaskRow, int]] = queue.Queue()
    for row in rows:
        threading.Thread(target=_await, args=(client, row, ended), daemon=True).start()
    codes: dict[str, int] = {}
    code = (first.exit_code or 0) if first else 0
    try:
        if first:
            click.echo(f"{first.task} ended with {code}: stopping the rest", err=True)
            stop()
        while not first and len(codes) < len(rows):
            row, code = ended.get()
            codes[row["task"]] = code
            _print_end(short_name(row["task"], name), code, reported)
            if attach.ends == "any" or (attach.ends == "failure" and code):
                click.echo(f"{row['task']} ended with {code}: stopping the rest", err=True)
                stop()
                break
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
        stop()
        raise
    if attach.shown:
        talker.join()  # it ends with the last line of the last container
    if attach.ends == "all":
        return 0
    if not attach.code_from:
        return code
    while missing := [r for r in rows if r["service"] == attach.code_from and r["task"] not in codes]:
        row, code = ended.get()
        codes[row["task"]] = code
        del missing
    return next((codes[r["task"]] for r in rows if r["service"] == attach.code_from), 0)


def _print_end(name: str, code: int, reported: Sequence[str]) -> None:
    """Say that a container ended, if it is one of those that are *reported*."""
    if name in reported:
        click.echo(f"{name} exited with code {code}")


def _await(client: Client, row: TaskRow, ended: queue.Queue[tuple[TaskRow, int]]) -> None:
    try:
        code = int(client.at(row["node"]).engine("POST", f"/containers/{row['id']}/wait")["StatusCode"])
    except PystackError:
        code = 1  # it went away with its node, or was removed
    ended.put((row, code))
