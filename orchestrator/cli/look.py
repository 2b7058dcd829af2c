"""`pystack ps`, `ls`, `images`, `events`"""

from __future__ import annotations

import json

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options, stream_format_option
from orchestrator.errors import PystackError


@click.command()
@stack_options
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run too (the default).")
@click.option("--status", multiple=True, metavar="STATE", help="Only tasks in this state; may be repeated.")
@click.option("--services", "names", is_flag=True, help="Only names of services, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Only container IDs.")
@click.argument("services", nargs=-1)
def ps(
    stack: StackOptions,
    shape: str,
    everything: bool,
    status: tuple[str, ...],
    names: bool,
    quiet: bool,
    services: tuple[str, ...],
) -> None:
    """The tasks of the stack."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    del everything
    name = stack.name()
    rows = Client().json("GET", f"/v1/stacks/{name}/tasks")
    if strangers := set(services) - {row["service"] for row in rows}:
        raise PystackError(f"stack {name} has no service {', '.join(sorted(strangers))}")
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
    show(rows, ("task", "service", "node", "image", "state", "ports", "addresses"), shape)


@click.command()
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Those of which nothing runs too (the default).")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
def ls(shape: str, everything: bool, quiet: bool) -> None:
    """All stacks."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    del everything
    if quiet:
        for row in Client().json("GET", "/v1/stacks"):
            click.echo(row["stack"])
        return
    show(Client().json("GET", "/v1/stacks"), ("stack", "revision", "running", "wanted", "nodes", "updated"), shape)


@click.command()
@stack_options
@format_option
def images(stack: StackOptions, shape: str) -> None:
    """Images that the stack's services use."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import bytes_text, show
    from orchestrator.errors import RefusedError

    client = Client()
    record = client.json("GET", f"/v1/stacks/{stack.name()}")
    rows = []
    for service in record["stack"].get("services", []):
        name = service["container"]["image"]
        try:
            found = client.engine("GET", f"/images/{name_in_path(name)}/json")
            row = {"id": found["Id"], "size": found["Size"]}
        except RefusedError:
            row = {"id": "", "size": 0}
        rows.append({"service": service["name"], "image": name, **row})
    if shape == "table":
        rows = [row | {"id": row["id"][7:19], "size": bytes_text(row["size"])} for row in rows]
    show(rows, ("service", "image", "id", "size"), shape)


@click.command()
@stack_options
@click.option("--json", "as_json", is_flag=True, help="--format json.")
@stream_format_option
@click.argument("services", nargs=-1)
def events(stack: StackOptions, as_json: bool, shape: str, services: tuple[str, ...]) -> None:
    """Changes of tasks, as they come: of a stack's where one is named, or of some of its services; else of all."""
    from orchestrator.cli.client import Client

    client = Client()
    named = services or any(stack.given[k] for k in ("file", "project_name", "project_directory"))
    name = stack.name() if named else ""
    if services:
        known = {s["name"] for s in client.json("GET", f"/v1/stacks/{name}")["stack"].get("services", [])}
        if strangers := set(services) - known:
            raise PystackError(f"stack {name} has no service {', '.join(sorted(strangers))}")
    for event in client.lines("GET", "/v1/events"):
        if (name and event.get("stack") != name) or (services and event.get("service") not in services):
            continue
        words = f"{event['task']}: {event['state']} {event.get('health', '')}"
        click.echo(json.dumps(event) if as_json or shape == "json" else words)
