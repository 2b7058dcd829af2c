"""`up --attach`: the stack's output, until it is interrupted or its containers end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

import click

from orchestrator.cli.logs import LIVE, SETTLED_S, LogOptions, follow_stack, short_name
from orchestrator.cli.options import is_compose
from orchestrator.cli.rows import tasks
from orchestrator.cli.selection import of_stack
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.attach_options import Attach
    from orchestrator.cli.client import Client
    from orchestrator.server.api.stacks import TaskRow
    from orchestrator.server.events import TaskEvent


class Begun(NamedTuple):
    """What was brought up: the stack's name and the services. *since* is an RFC 3339 time. *first* is the status of a container
    that ended before all had begun."""

    stack: str
    services: tuple[str, ...]
    since: str
    first: TaskEvent | None = None


class Ends:
    """The ends of the containers of tasks: each as it comes, to be reported, and the last of each. *left* is called to leave
    them as they are."""

    def __init__(self, client: Client, begun: Begun, ends: str) -> None:
        self._client, self._begun, self._ends = client, begun, ends
        self.rows = of_stack(client, begun.stack, begun.services)
        self._arrived: queue.SimpleQueue[tuple[TaskRow, int] | None] = queue.SimpleQueue()
        self._last: dict[str, Future[int]] = {row["task"]: Future() for row in self.rows}
        self._each: dict[str, queue.SimpleQueue[int]] = {row["task"]: queue.SimpleQueue() for row in self.rows}
        for row in self.rows:
            threading.Thread(target=self._await, args=(row,), daemon=True).start()

    def leave(self) -> None:
        """Wait for none any more: `wait` says so."""
        self._arrived.put(None)

    def wait(self) -> tuple[TaskRow | None, int, bool]:
        """The container that ends all, where *ends* lets one, or the last one, with its exit status; False where the wait was
        left."""
        code = 0
        for _ in self.rows:
            if (found := self._arrived.get()) is None:
                return None, 0, False
            row, code = found
            if self._is_enough(code):
                return row, code, True
        return None, code, True

    def next_of(self, task: str) -> int:
        """The exit status of the next container of *task* that was not asked for yet."""
        try:
            return self._each[task].get(timeout=10)
        except (KeyError, queue.Empty):  # it began after all were counted, or its end passed unseen
            rows = (row for row in tasks(self._client, self._begun.stack) if row["task"] == task)
            return next((row["exit_code"] or 0 for row in rows), 0)

    def of_service(self, name: str) -> int:
        """The exit status of the first container of service *name*, when all of its containers have ended."""
        return next(iter([self._last[row["task"]].result() for row in self.rows if row["service"] == name]), 0)

    def _is_enough(self, code: int) -> bool:
        return self._ends == "any" or (self._ends == "failure" and bool(code))

    def _await(self, row: TaskRow) -> None:
        """Report the end of the task of *row*: one that is restarted, or replaced, has not ended."""
        current: TaskRow | None = row
        while current:
            row = current
            try:
                path = f"/containers/{row['id']}/wait"
                code = int(self._client.at(row["node"]).engine("POST", path)["StatusCode"])
            except PystackError:
                code = 1  # it went away with its node, or was removed
            self._each[row["task"]].put(code)
            if self._is_enough(code):
                break
            time.sleep(SETTLED_S)
            current = self._again(row["task"])
        self._last[row["task"]].set_result(code)
        self._arrived.put((row, code))

    def _again(self, task: str) -> TaskRow | None:
        """The row of *task* if it runs, or is about to."""
        try:
            rows = [row for row in tasks(self._client, self._begun.stack) if row["task"] == task]
        except PystackError:
            return None
        return next((row for row in rows if row["id"] and row["state"] in LIVE), None)


def run_attached(client: Client, begun: Begun, attach: Attach, ends: Ends, stop: Callable[[], None]) -> int:
    """Show the output of the services `attach.shown` from the beginning until the containers end, or `ends.leave` is called.
    *stop* is called where `attach.ends` lets one container end all. Returns the exit status of the command."""
    name = begun.stack
    project = name if is_compose() else ""
    options = LogOptions(follow=True, since=begun.since, project=project, **attach.style)
    reported = {r["task"]: short_name(r, name) for r in ends.rows if project and r["service"] in attach.shown}
    if reported:
        click.echo(f"Attaching to {', '.join(reported.values())}")

    def tell_end(task: str) -> None:
        """Say that a container ended, after its last line."""
        if task in reported:
            click.echo(f"{reported[task]} exited with code {ends.next_of(task)}")

    talker = threading.Thread(target=follow_stack, args=(client, name, attach.shown, options, tell_end), daemon=True)
    if attach.shown:
        talker.start()
    try:
        if begun.first:
            code = begun.first.exit_code or 0
            _say_stopping(begun.first.task, code)
            stop()
        else:
            row, code, ended = ends.wait()
            if not ended:
                return 0
            if row:
                _say_stopping(row["task"], code)
                stop()
    except KeyboardInterrupt:
        click.echo("Gracefully stopping" if is_compose() else "stopping", err=True)
        stop()
        raise
    if attach.shown:
        talker.join()  # it ends with the last line of the last container
    if attach.ends == "all":
        return 0
    return ends.of_service(attach.code_from) if attach.code_from else code


def _say_stopping(task: str, code: int) -> None:
    """Why the rest is stopped, in Docker Compose's words where they are asked for."""
    if is_compose():
        click.echo(f"Aborting on container {'failure' if code else 'exit'}...", err=True)
    else:
        click.echo(f"{task} ended with {code}: stopping the rest", err=True)
