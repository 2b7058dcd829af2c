"""How the client shows things: tables, JSON, progress on a terminal and plain lines without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

import click

from orchestrator.cli.options import global_option, is_compose
from orchestrator.stackfile.units import show_bytes

if TYPE_CHECKING:
    from orchestrator.cli.compose_progress import Words
    from orchestrator.server.events import Event, Failure, PullEvent, TaskEvent, VolumeEvent, WorkEvent

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")
"""What a terminal takes for an order; it may come from an image or a container."""
UNDER_WAY = ("Preparing", "Pulling fs layer", "Verifying Checksum", "Download complete")
"""States of a layer that only Docker's own clients show."""
COLOURS = {"create": "green", "update": "yellow", "replace": "yellow", "remove": "red"}


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Aligned columns under upper-case heads."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    heads = [column.upper().replace("_", " ") for column in columns]
    widths = _fitting([max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))])
    for line in [heads, *cells]:
        shown = (text if len(text) <= w else text[: w - 1] + "…" for text, w in zip(line, widths, strict=True))
        click.echo("  ".join(text.ljust(width) for text, width in zip(shown, widths, strict=True)).rstrip())


def _fitting(widths: list[int], narrowest: int = 8) -> list[int]:
    """*widths* of columns, the widest made narrower until a line fits this terminal; unchanged where there is none."""
    if not sys.stdout.isatty():
        return widths
    room, out = shutil.get_terminal_size().columns - 2 * (len(widths) - 1), list(widths)
    while sum(out) > room and max(out) > narrowest:
        widest = max(out)
        second = max((w for w in out if w < widest), default=narrowest)
        out[out.index(widest)] = max(second, widest - (sum(out) - room), narrowest)
    return out


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        value = ", ".join(str(v) for v in value.values())
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value)
    return CONTROL.sub("", str(value))


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], shape: str) -> None:
    """Print *rows* in the *shape* that `--format` names: one JSON list, a table of *columns*, or a line a row by a template."""
    if shape == "table":
        table(rows, columns)
    elif shape == "json":
        click.echo(json.dumps(list(rows), indent=2 if sys.stdout.isatty() else None))
    else:
        from orchestrator.cli import templated

        for line in templated.lines(rows, shape):
            click.echo(CONTROL.sub("", line))


def show_document(document: Mapping[str, Any] | Sequence[Mapping[str, Any]], shape: str) -> bool:
    """Print *document* as JSON or by the template that *shape* is; False, with nothing printed, where it is table."""
    if shape == "table":
        return False
    if shape == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        show([document] if isinstance(document, Mapping) else document, (), shape)
    return True


bytes_text = show_bytes


def binary_text(count: float) -> str:
    """*count* bytes in B, KiB, MiB … with four digits, as Docker shows memory."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB"), 4)


def decimal_text(count: float) -> str:
    """*count* bytes in B, kB, MB … with three digits, as Docker shows files and traffic."""
    return _scaled(count, 1000, ("B", "kB", "MB", "GB", "TB"), 3)


def _scaled(count: float, base: int, units: Sequence[str], digits: int) -> str:
    for unit in units[:-1]:
        if count < base:
            return f"{count:.{digits}g}{unit}"
        count /= base
    return f"{count:.{digits}g}{units[-1]}"


class Progress:
    """Events of an `up` or a pull: redrawn in place on a terminal, one plain line each without, or JSON."""

    def __init__(self, mode: str = "auto", *, quiet_pull: bool = False) -> None:
        """*quiet_pull*: without a word of pulling."""
        if mode == "auto":
            mode = global_option("progress") or os.environ.get("COMPOSE_PROGRESS", "auto")
        self.mode = mode if mode in ("plain", "json", "quiet", "tty") else "tty" if sys.stderr.isatty() else "plain"
        self._quiet_pull = quiet_pull
        self._words: Words | None = None
        if is_compose():
            from orchestrator.cli.compose_progress import Words

            self._words = Words()
        self._states: dict[str, str] = {}
        self._bars: dict[str, tuple[int, int]] = {}
        self._drawn = 0.0
        self._open = False

    def expect(self, waited_for: Mapping[str, str], *, to_the_end: bool) -> None:
        """Tell which services, by the beginning of their tasks' names, are *waited_for* by others, and on which condition;
        *to_the_end*: and by this command, all."""
        if self._words:
            self._words.expect(waited_for, to_the_end=to_the_end)

    def expect_ended(self, tasks: Collection[str]) -> None:
        """Tell which *tasks* have ended already, and need not be stopped."""
        if self._words:
            self._words.ended = frozenset(tasks)

    def event(self, event: Event) -> None:
        """Show one event."""
        import msgspec

        from orchestrator.server import events

        if self.mode == "json" and not self._words:
            print(json.dumps(msgspec.to_builtins(event)), flush=True)
            return
        if self.mode == "quiet" or (self._quiet_pull and isinstance(event, events.PullEvent)):
            return
        if self._words and not isinstance(event, events.PullEvent):
            return self._words.event(event)
        match event:
            case events.StepEvent():
                on = f" on {event.node}" if event.node else ""
                text = f"{event.action} {event.kind} {event.name}{on}: {event.reason}"
                click.secho(text, fg=COLOURS.get(event.action), err=True)
            case events.TaskEvent():
                self._task(event)
            case events.PullEvent():
                self.pull(event)
            case events.MoveEvent():
                tasks = ", ".join(event.tasks)
                click.echo(f"move {tasks} from {event.source} to {event.target}: {event.reason}", err=True)
            case events.ShipEvent():
                click.echo(f"ship image {event.image} from {event.source} to {event.target}", err=True)
            case events.VolumeEvent() | events.WorkEvent():
                click.echo(_work_text(event), err=True)
            case events.WarningEvent():
                click.echo(f"warning: {CONTROL.sub('', event.message)}", err=True)
            case events.DoneEvent() | events.ErrorEvent():
                pass  # for callers that read the stream to its end
            case _:
                assert_never(event)

    def _task(self, event: TaskEvent) -> None:
        word = event.state + (f" ({event.health})" if event.health else "")
        if event.state in ("pending", "created", "stopping") or self._states.get(event.task) == word:
            return
        self._states[event.task] = word
        self._end_bar()
        colour = "green" if event.state == "running" else "red" if event.state == "failed" else None
        click.secho(f"{event.task}: {word}", fg=colour, err=True)
        for note in event.notes if event.state == "running" else ():
            click.echo(f"warning: {event.task}: {CONTROL.sub('', note)}", err=True)

    def pull(self, event: PullEvent) -> None:
        """Layers of all pulls in one line on a terminal; without one, a line when a layer is done."""
        layer = event.id
        if self.mode == "json" or event.status in UNDER_WAY:
            return
        if event.detail:
            self._bars[layer] = event.detail["current"], event.detail["total"]
            if self.mode == "tty" and time.monotonic() - self._drawn > 0.05:
                self._draw(event.image)
            return
        if layer and event.status == "Pull complete" and layer in self._bars:
            total = self._bars[layer][1]
            self._bars[layer] = total, total
        if self.mode == "plain" or not layer:
            self._end_bar()
            click.echo(f"{event.image}: {layer + ': ' if layer else ''}{event.status}", err=True)

    def _draw(self, image: str) -> None:
        done, total = (sum(bar[i] for bar in self._bars.values()) for i in (0, 1))
        width = 30
        filled = int(width * done / total) if total else 0
        bar = "█" * filled + "░" * (width - filled)
        sys.stderr.write(f"\r\033[K{image} {bar} {bytes_text(done)} / {bytes_text(total)}")
        sys.stderr.flush()
        self._drawn, self._open = time.monotonic(), True

    def _end_bar(self) -> None:
        if self._open:
            sys.stderr.write("\r\033[K")
            self._open = False


def _work_text(event: VolumeEvent | WorkEvent) -> str:
    from orchestrator.server import events

    if isinstance(event, events.VolumeEvent):
        return f"volume {event.volume} from {event.source} to {event.target}: {event.message}"
    return f"{event.work}{f' on {event.node}' if event.node else ''}: {event.message}"


def failures(found: Sequence[Failure]) -> None:
    """One screen for what went wrong; the last thing on stderr."""
    for failure in found:
        code = failure.exit_code
        reason = CONTROL.sub("", failure.reason)
        click.secho(f"\n{failure.where}: {failure.task}: {reason}", fg="red", err=True)
        if code is not None and f"exited with {code}" not in failure.reason:
            click.echo(f"    exit code {code}", err=True)
        for line in failure.log:
            click.echo(f"    | {CONTROL.sub('', line)}", err=True)


def consume_events(stream: Iterable[Event], shown: Progress) -> None:
    """Show a stream of events to its end. Raises SystemExit with 1 where something failed."""
    from orchestrator.server.events import DoneEvent

    failed: Sequence[Failure] = ()
    for event in stream:
        if isinstance(event, DoneEvent):
            failed = event.failures
        shown.event(event)
    if failed:
        failures(failed)
        if is_compose():
            from orchestrator.cli.compose_progress import say_failures

            say_failures(failed)
        raise SystemExit(1)
