"""Progress in Docker Compose's words, one plain line a change, on the standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import global_option

if TYPE_CHECKING:
    from orchestrator.server.events import Event, Failure

KINDS = {"network": "Network", "volume": "Volume", "task": "Container"}
BEGUN = {"create": "Creating", "replace": "Recreate", "remove": "Removing"}
VERBS = {"kill": ("Killing", "Killed"), "pause": ("Pausing", "Paused"), "unpause": ("Unpausing", "Unpaused")}
"""Of verbs that are done at once."""
DONE = {"create": "Created", "replace": "Recreated", "remove": "Removed"}
ORDERS = {"stop": ("Stopping", "Stopped"), "start": ("Starting", "Started"), "restart": ("Restarting", "Started")}


def say(kind: str, name: str, word: str) -> None:
    """One line of progress, on the standard output where COMPOSE_STATUS_STDOUT asks for that; JSON, or nothing, where
    --progress says so."""
    _line(f"{kind} {name}  {word}", {"id": f"{kind} {name}", "status": word})


def say_line(text: str) -> None:
    """*text*, as `say` says what becomes of an object."""
    _line(text, {"text": text})


def _line(plain: str, fields: dict[str, str]) -> None:
    import os

    context = click.get_current_context(silent=True)
    dry = bool(context and context.meta.get("dry_run"))
    mode = (global_option("progress") if context else "") or os.environ.get("COMPOSE_PROGRESS", "")
    if mode == "quiet":
        return
    if mode == "json":
        line = json.dumps({**({"dry-run": True} if dry else {}), **fields}, separators=(",", ":"))
    else:
        line = f" {'DRY-RUN MODE -  ' if dry else ''}{plain}"
    click.echo(line, err=os.environ.get("COMPOSE_STATUS_STDOUT", "") not in ("1", "true"))


def say_failures(found: Sequence[Failure]) -> None:
    """What went wrong, once more in Docker Compose's words, on the standard error."""
    waited = {f.waits_for: f.condition for f in found if f.waits_for}
    for one in found:
        ended = f"exited ({one.exit_code})" if one.exit_code else one.reason
        if one.waits_for:
            continue
        if waited.get(one.service) == "service_completed_successfully" and one.exit_code:
            line = f"service {json.dumps(one.service)} didn't complete successfully: exit {one.exit_code}"
        else:
            line = f"{'dependency failed to start: ' if one.service in waited else ''}container {one.task} {ended}"
        click.echo(line, err=True)


class Words:
    """What was said of each container so far, and what is to be said when it is as far as it was going to be."""

    def __init__(self) -> None:
        self._ends: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._shown: set[tuple[str, str, str]] = set()
        self._waited_for: Mapping[str, str] = {}
        self._to_the_end = False
        self.ended: frozenset[str] = frozenset()
        """Tasks whose containers have ended already: no line says that they are stopped."""

    def expect(self, waited_for: Mapping[str, str], *, to_the_end: bool) -> None:
        """Tell which services, by the beginning of their tasks' names, are *waited_for* by others, and on which condition;
        *to_the_end*: and by this command, all."""
        self._waited_for, self._to_the_end = waited_for, to_the_end

    def event(self, event: Event) -> None:
        """Say it."""
        from orchestrator.server import events

        match event:
            case events.StepEvent():
                self._step(event)
            case events.TaskEvent():
                self._task(event)
            case events.WarningEvent():
                click.echo(f"WARN {event.message}", err=True)
            case events.DoneEvent():
                self._finish("")

    def _step(self, event: events.StepEvent) -> None:
        kind = KINDS.get(event.kind, "")
        if not kind or event.action == "none":
            return
        if event.container_name:
            self._names[event.name] = event.container_name
        if event.kind != "task":
            self._finish("Removed")  # nothing of what is left can go before the containers
            self._line(kind, event.name, BEGUN.get(event.action, "Creating"))
            self._line(kind, event.name, DONE.get(event.action, "Created"))
        elif event.action == "update":
            begun, self._ends[event.name] = ORDERS.get(event.reason, ("Starting", "Started"))
            self._line(kind, event.name, begun)
        else:
            if event.name not in self.ended:
                self._line(kind, event.name, "Stopping" if event.action == "remove" else BEGUN[event.action])
            self._ends[event.name] = DONE[event.action]

    def _finish(self, word: str) -> None:
        """Say of those that were to be *word*, or of all, that they are."""
        done = {name: end for name, end in self._ends.items() if word in ("", end)}
        for name, end in done.items():
            stopped = () if name in self.ended else ("Stopped",)
            for one in (*stopped, "Removing", "Removed") if end == "Removed" else (end,):
                self._line("Container", name, one)
            del self._ends[name]

    def _task(self, event: events.TaskEvent) -> None:
        name, state = event.task, event.state
        if state in ("starting", "running") and self._ends.get(name) in ("Created", "Recreated"):
            self._line("Container", name, self._ends.pop(name))
        if state == "starting":
            self._line("Container", name, "Starting")
        if state == "exited" and self._ends.get(name) == "Recreated":
            return  # the one before
        condition = "" if self._to_the_end else self._waited_for.get(name.rpartition("-")[0], "service_started")
        if state in ("running", "exited"):
            if self._ends.pop(name, "Started") == "Started" and ("Container", name, "Restarting") not in self._shown:
                self._line("Container", name, "Starting")
            self._line("Container", name, "Started")
        if state == "exited" and condition in ("", "service_completed_successfully"):
            self._line("Container", name, "Exited")
        if state == "running" and condition in ("", "service_healthy"):
            if event.health == "starting":
                self._line("Container", name, "Waiting")
            if event.health in ("healthy", "unhealthy"):
                self._line("Container", name, event.health.capitalize())

    def _line(self, kind: str, name: str, word: str) -> None:
        if (kind, name, word) not in self._shown:
            self._shown.add((kind, name, word))
            say(kind, self._names.get(name, name), word)


if TYPE_CHECKING:
    from orchestrator.server import events
