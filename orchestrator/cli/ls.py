"""`pystack ls`: all stacks."""

from __future__ import annotations

import click

from orchestrator.cli.filters import name_parts_of
from orchestrator.cli.options import format_option


@click.command()
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Those of which nothing runs too (the default).")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("--filter", "filters", multiple=True, metavar="name=PART", help="Only stacks whose name has this part.")
def ls(shape: str, everything: bool, quiet: bool, filters: tuple[str, ...]) -> None:
    """All stacks."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show
    from orchestrator.cli.rows import stacks

    del everything
    parts = name_parts_of(filters)
    rows = [row for row in stacks(Client()) if all(part in row["stack"] for part in parts)]
    if quiet:
        for row in rows:
            click.echo(row["stack"])
        return
    show(rows, ("stack", "revision", "running", "wanted", "nodes", "updated"), shape)
