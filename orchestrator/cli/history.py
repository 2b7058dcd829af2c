"""`pystack history`, `rollback`"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options, user_name

if TYPE_CHECKING:
    from orchestrator.server.api.stacks import RevisionRow


@click.command()
@stack_options
@format_option
def history(stack: StackOptions, shape: str) -> None:
    """The revisions of the stack: when, who, and why."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows: list[RevisionRow] = Client().json("GET", f"/v1/stacks/{stack.name()}/history")
    shown: Sequence[Mapping[str, object]] = rows
    if shape == "table":
        shown = [{**row, "revision": f"{row['revision']}{' *' if row['current'] else ''}"} for row in rows]
    show(shown, ("revision", "updated", "user", "message", "services"), shape)


@click.command()
@stack_options
@click.option("-m", "--message", default="", help="Why, for the stack's history.")
@click.argument("revision", type=int, default=0, required=False)
def rollback(stack: StackOptions, message: str, revision: int) -> None:
    """Apply an earlier revision of the whole stack again; without one, the one before the present."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    body = {"revision": revision, "options": {"message": message, "user": user_name()}}
    consume_events(Client(start=True).events(f"/v1/stacks/{stack.name()}/rollback", body=body), Progress())
