"""`pystack ps`, `ls`, `images`, `events`"""

from __future__ import annotations

import json

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options


@click.command()
@stack_options
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only container IDs.")
@click.argument("services", nargs=-1)
def ps(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """The tasks of the stack."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows = Client().json("GET", f"/v1/stacks/{stack.name()}/tasks")
    rows = [row for row in rows if not services or row["service"] in services]
    if quiet:
        click.echo("\n".join(row["id"] for row in rows if row["id"]))
        return
    if shape == "table":
        for row in rows:
            row["state"] += f" ({row['health']})" if row["health"] else ""
            row["state"] += f" ({row['exit_code']})" if row["state"] == "exited" else ""
    show(rows, ("task", "service", "node", "image", "state", "ports", "addresses"), shape)


@click.command()
@format_option
def ls(shape: str) -> None:
    """All stacks."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    show(Client().json("GET", "/v1/stacks"), ("stack", "revision", "running", "wanted", "nodes", "updated"), shape)


@click.command()
@stack_options
@format_option
def images(stack: StackOptions, shape: str) -> None:
    """Images that the stack's services use."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import bytes_text, show
    from orchestrator.errors import Refused

    client = Client()
    record = client.json("GET", f"/v1/stacks/{stack.name()}")
    rows = []
    for service in record["stack"].get("services", []):
        name = service["container"]["image"]
        try:
            found = client.engine("GET", f"/images/{name_in_path(name)}/json")
            row = {"id": found["Id"], "size": found["Size"]}
        except Refused:
            row = {"id": "", "size": 0}
        rows.append({"service": service["name"], "image": name, **row})
    if shape == "table":
        rows = [row | {"id": row["id"][7:19], "size": bytes_text(row["size"])} for row in rows]
    show(rows, ("service", "image", "id", "size"), shape)


@click.command()
@click.option("--json", "as_json", is_flag=True)
def events(as_json: bool) -> None:
    """Changes of tasks, as they come."""
    from orchestrator.cli.client import Client

    for event in Client().lines("GET", "/v1/events"):
        click.echo(json.dumps(event) if as_json else f"{event['task']}: {event['state']} {event.get('health', '')}")
