"""`pystack ps`: the tasks of a stack."""

from __future__ import annotations

import click

from orchestrator.cli.filters import states_of
from orchestrator.cli.options import StackOptions, format_option, stack_options


@click.command()
@stack_options
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="The containers of `run` too; those that ended are shown anyhow.")
@click.option("--status", multiple=True, metavar="STATE", help="Only tasks in this state; may be repeated.")
@click.option("--services", "names", is_flag=True, help="Only names of services, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Only container IDs.")
@click.option("--filter", "filters", multiple=True, metavar="status=STATE", help="As --status.")
@click.option("--orphans/--no-orphans", default=True, help="Tasks of services that left the file too.")
@click.option("--no-trunc", is_flag=True, hidden=True)  # nothing is shortened
@click.argument("services", nargs=-1)
def ps(
    stack: StackOptions,
    shape: str,
    everything: bool,
    status: tuple[str, ...],
    names: bool,
    quiet: bool,
    filters: tuple[str, ...],
    orphans: bool,
    no_trunc: bool,
    services: tuple[str, ...],
) -> None:
    """The tasks of the stack."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import CONTROL, show
    from orchestrator.cli.rows import tasks

    del no_trunc
    name, status = stack.name(), status + states_of(filters)
    rows = tasks(Client(), name, oneoff=everything)
    if not orphans:
        mine = {s.name for s in stack.load(quiet=True).stack.services}
        rows = [row for row in rows if row["service"] in mine]
    stack.check_services(tuple(set(services) - {row["service"] for row in rows}))
    rows = [r for r in rows if (not services or r["service"] in services) and (not status or r["state"] in status)]
    if names or quiet:
        found = dict.fromkeys(row["service"] for row in rows) if names else [row["id"] for row in rows if row["id"]]
        if found:
            click.echo("\n".join(found))
        return
    if shape == "table":
        for row in rows:
            row["state"] += f" ({row['health']})" if row["health"] else ""
            row["state"] += f" ({row['exit_code']})" if row["state"] == "exited" else ""
        mixed: dict[str, set[str]] = {}
        for row in rows:
            mixed.setdefault(row["service"], set()).add(row["definition"])
        for service in (name for name, found in mixed.items() if len(found - {""}) > 1):
            click.echo(f"{service}: its tasks have {len(mixed[service])} definitions: see `pystack rollout status`", err=True)
    show(rows, ("task", "service", "node", "image", "state", "ports", "addresses"), shape)
    for row in rows if shape == "table" else ():
        if row["error"]:
            click.echo(CONTROL.sub("", f"{row['task']}: {row['error']}"), err=True)
