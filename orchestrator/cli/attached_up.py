"""`up --attach`: the stack's output, until it is interrupted or its containers end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import click

from orchestrator.cli.logs import LogOptions, follow_stack, short_name
from orchestrator.cli.options import is_compose
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
    project = name if is_compose() else ""
    options = LogOptions(follow=True, since=since, project=project, **attach.style)
    reported = {r["task"]: short_name(r, name) for r in rows if project and r["service"] in attach.shown}
    if reported:
        click.echo(f"Attaching to {', '.join(reported.values())}")
    ended: queue.Queue[tuple[TaskRow, int]] = queue.Queue()
    ends: dict[str, Future[int]] = {row["task"]: Future() for row in rows}
    for row in rows:
        threading.Thread(target=_await, args=(client, row, ended, ends[row["task"]]), daemon=True).start()

    def tell_end(task: str) -> None:
        """Say that a container ended, after its last line."""
        if task in reported:
            click.echo(f"{reported[task]} exited with code {ends[task].result()}")

    talker = threading.Thread(target=follow_stack, args=(client, name, attach.shown, options, tell_end), daemon=True)
    if attach.shown:
        talker.start()
    code = (first.exit_code or 0) if first else 0
    try:
        if first:
            _say_stopping(first.task, code)
            stop()
        for _ in () if first else rows:
            row, code = ended.get()
            if attach.ends == "any" or (attach.ends == "failure" and code):
                _say_stopping(row["task"], code)
                stop()
                break
    except KeyboardInterrupt:
        click.echo("Gracefully stopping" if is_compose() else "stopping", err=True)
        stop()
        raise
    if attach.shown:
        talker.join()  # it ends with the last line of the last container
    if attach.ends == "all":
        return 0
    return _code_of(attach.code_from, rows, ends) if attach.code_from else code


def _code_of(service: str, rows: Sequence[TaskRow], ends: Mapping[str, Future[int]]) -> int:
    """The exit status of the first container of *service*, when all of its containers have ended."""
    return next(iter([ends[row["task"]].result() for row in rows if row["service"] == service]), 0)


def _say_stopping(task: str, code: int) -> None:
    """Why the rest is stopped, in Docker Compose's words where they are asked for."""
    if is_compose():
        click.echo(f"Aborting on container {'failure' if code else 'exit'}...", err=True)
    else:
        click.echo(f"{task} ended with {code}: stopping the rest", err=True)


def _await(client: Client, row: TaskRow, ended: queue.Queue[tuple[TaskRow, int]], end: Future[int]) -> None:
    try:
        code = int(client.at(row["node"]).engine("POST", f"/containers/{row['id']}/wait")["StatusCode"])
    except PystackError:
        code = 1  # it went away with its node, or was removed
    end.set_result(code)
    ended.put((row, code))
