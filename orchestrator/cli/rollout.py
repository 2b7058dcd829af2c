"""`pystack rollout …`: what an `up` does goes on in the cluster without a client."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


@click.group()
def rollout() -> None:
    """The rollout of a stack: `up` begins one, the cluster carries it out."""


def _summary(row: dict[str, Any]) -> None:
    from orchestrator.cli.output import CONTROL, failures, table

    words = {
        "state": row["state"],
        "phase": row["phase"],
        "revision": f"{row['revision']} (before: {row['before'] or 'none'})",
        "begun": f"{row['begun']} by {row['user'] or 'nobody named'}, {row['verb']}",
        "ended": row["ended"],
        "message": row["message"],
        "reason": row["reason"],
    }
    for name, text in words.items():
        if text:
            click.echo(f"{name}: {CONTROL.sub('', str(text))}")
    rows = [{"service": name, "new": done, "tasks": total} for name, (done, total) in row["services"].items()]
    if rows:
        table(rows, ("service", "new", "tasks"))
    if row["failures"]:
        import msgspec

        from orchestrator.server.events import Failure

        failures(msgspec.convert(row["failures"], tuple[Failure, ...]))


@rollout.command()
@stack_options
@format_option
def status(stack: StackOptions, shape: str) -> None:
    """How far the rollout is, or how the last one ended; ends with 1 where it failed."""
    import json

    from orchestrator.cli.client import Client

    row = Client().json("GET", f"/v1/stacks/{stack.name()}/rollout")
    if shape == "json":
        click.echo(json.dumps([row]))
    else:
        _summary(row)
    if row["state"] in ("failed", "aborted", "superseded"):
        raise SystemExit(1)


def _follow(stack: StackOptions, verb: str) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client().events(f"/v1/stacks/{stack.name()}/rollout/{verb}"), Progress())


@rollout.command()
@stack_options
def watch(stack: StackOptions) -> None:
    """Follow the rollout to its end, as `up` does."""
    _follow(stack, "watch")


@rollout.command()
@stack_options
def pause(stack: StackOptions) -> None:
    """Stop when the tasks are up that are being exchanged; `resume` goes on."""
    from orchestrator.cli.client import Client

    click.echo(Client().json("POST", f"/v1/stacks/{stack.name()}/rollout/pause")["phase"])


@rollout.command()
@stack_options
def resume(stack: StackOptions) -> None:
    """Go on with a rollout that was paused, failed or was given up, and follow it."""
    _follow(stack, "resume")


@rollout.command()
@stack_options
def promote(stack: StackOptions) -> None:
    """Do not wait for the end of a canary's or blue-green's step: go on to the next."""
    from orchestrator.cli.client import Client

    row = Client().json("POST", f"/v1/stacks/{stack.name()}/rollout/promote")
    click.echo(f"{row['stack']}: goes on")


@rollout.command()
@stack_options
def abort(stack: StackOptions) -> None:
    """Give the rollout up and go back to the revision from before it."""
    _follow(stack, "abort")


def interrupted(client: Client, stack: str) -> None:
    """What ctrl-C during an `up` means: asked on a terminal; without one the rollout goes on."""
    from orchestrator.errors import PystackError

    try:
        state = client.json("GET", f"/v1/stacks/{stack}/rollout")["state"]
    except PystackError:
        return
    if state != "running":
        return
    choice = "leave"
    if sys.stdin.isatty() and sys.stderr.isatty():
        choice = click.prompt(
            f"\nthe rollout of {stack} is going on", type=click.Choice(["leave", "pause", "abort"]), default="leave", err=True
        )
    if choice == "leave":
        click.echo(f"the rollout of {stack} goes on: `pystack rollout watch` follows it, `abort` takes it back", err=True)
    elif choice == "pause":
        client.json("POST", f"/v1/stacks/{stack}/rollout/pause")
    else:
        from orchestrator.cli.output import Progress, consume_events

        consume_events(client.events(f"/v1/stacks/{stack}/rollout/abort"), Progress())
