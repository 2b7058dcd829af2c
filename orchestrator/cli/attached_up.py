"""`up --attach`: the stack's output, until it is interrupted or its containers end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.logs import follow_stack
from orchestrator.cli.tasks import of_stack
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.events import TaskEvent


def run_attached(
    client: Client,
    name: str,
    services: tuple[str, ...],
    *,
    shown: tuple[str, ...],
    stop: Callable[[], None],
    since: str,
    ends: str = "all",
    code_from: str = "",
    first: TaskEvent | None = None,
    style: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Show the output of *shown* since then until the containers of *services* end; the exit status of the command.

    *ends* is what ends it all: "all" of them, "any" one, or a "failure"; the rest is stopped then. *first* is the status of one
    that ended already, before all had begun. *code_from* names the service whose exit code it is."""
    rows = of_stack(client, name, services)
    body = {"follow": True, "tail": "all", "since": since, **style}
    talker = threading.Thread(target=follow_stack, args=(client, name, shown), kwargs=body, daemon=True)
    if shown:
        talker.start()
    ended: queue.Queue[tuple[dict[str, Any], int]] = queue.Queue()
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
            if ends == "any" or (ends == "failure" and code):
                click.echo(f"{row['task']} ended with {code}: stopping the rest", err=True)
                stop()
                break
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
        stop()
        raise
    if shown:
        talker.join()  # it ends with the last line of the last container
    if ends == "all":
        return 0
    if not code_from:
        return code
    while missing := [r for r in rows if r["service"] == code_from and r["task"] not in codes]:
        row, code = ended.get()
        codes[row["task"]] = code
        del missing
    return next((codes[r["task"]] for r in rows if r["service"] == code_from), 0)


def _await(client: Client, row: dict[str, Any], ended: queue.Queue[tuple[dict[str, Any], int]]) -> None:
    try:
        code = int(client.at(row["node"]).engine("POST", f"/containers/{row['id']}/wait")["StatusCode"])
    except PystackError:
        code = 1  # it went away with its node, or was removed
    ended.put((row, code))
