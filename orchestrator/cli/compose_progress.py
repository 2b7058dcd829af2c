"""Progress in Docker Compose's words, one plain line a change, on the standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.server.events import Event

KINDS = {"network": "Network", "volume": "Volume", "task": "Container"}
BEGUN = {"create": "Creating", "replace": "Recreate", "remove": "Removing"}
VERBS = {"kill": ("Killing", "Killed"), "pause": ("Pausing", "Paused"), "unpause": ("Unpausing", "Unpaused")}
"""Of verbs that are done at once."""
DONE = {"create": "Created", "replace": "Recreated", "remove": "Removed"}
ORDERS = {"stop": ("Stopping", "Stopped"), "start": ("Starting", "Started"), "restart": ("Restarting", "Started")}


def say(kind: str, name: str, word: str) -> None:
    """One line of progress, on the standard output where COMPOSE_STATUS_STDOUT asks for that."""
    import os

    context = click.get_current_context(silent=True)
    dry = "DRY-RUN MODE -  " if context and context.meta.get("dry_run") else ""
    click.echo(f" {dry}{kind} {name}  {word}", err=os.environ.get("COMPOSE_STATUS_STDOUT", "") not in ("1", "true"))


class Words:
    """What was said of each container so far, and what is to be said when it is as far as it was going to be."""

    def __init__(self) -> None:
        self._ends: dict[str, str] = {}
        self._shown: set[tuple[str, str]] = set()

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
        if event.kind != "task":
            self._finish("Removed")  # nothing of what is left can go before the containers
            self._line(kind, event.name, BEGUN.get(event.action, "Creating"))
            self._line(kind, event.name, DONE.get(event.action, "Created"))
        elif event.action == "update":
            begun, self._ends[event.name] = ORDERS.get(event.reason, ("Starting", "Started"))
            self._line(kind, event.name, begun)
        else:
            self._line(kind, event.name, "Stopping" if event.action == "remove" else BEGUN[event.action])
            self._ends[event.name] = DONE[event.action]

    def _finish(self, word: str) -> None:
        """Say of those that were to be *word*, or of all, that they are."""
        done = {name: end for name, end in self._ends.items() if word in ("", end)}
        for name, end in done.items():
            self._line("Container", name, end)
            del self._ends[name]

    def _task(self, event: events.TaskEvent) -> None:
        name, state = event.task, event.state
        if state in ("starting", "running") and self._ends.get(name) in ("Created", "Recreated"):
            self._line("Container", name, self._ends.pop(name))
        if state == "starting":
            self._line("Container", name, "Starting")
        if state == "running" or state == "exited":
            self._ends.pop(name, None)
            self._line("Container", name, "Started" if state == "running" else "Exited")
        if state == "running" and event.health == "starting":
            self._line("Container", name, "Waiting")
        if state == "running" and event.health in ("healthy", "unhealthy"):
            self._line("Container", name, event.health.capitalize())

    def _line(self, kind: str, name: str, word: str) -> None:
        if (name, word) not in self._shown:
            self._shown.add((name, word))
            say(kind, name, word)


if TYPE_CHECKING:
    from orchestrator.server import events
