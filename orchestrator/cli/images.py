"""`pystack images`: the images of a stack."""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options


@click.command()
@stack_options
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only the images' IDs.")
@click.argument("services", nargs=-1)
def images(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """Images that the stack's services use."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import bytes_text, show
    from orchestrator.cli.rows import services as applied_services
    from orchestrator.errors import RefusedError

    client, known = Client(), {}
    try:
        known = applied_services(client, stack.name())
    except RefusedError as error:
        if error.status != 404:
            raise
        stack.check_services(services)
    rows = []
    for service in known.values():
        name = service["container"]["image"]
        try:
            found = client.engine("GET", f"/images/{name_in_path(name)}/json")
            row = {"id": found["Id"], "size": found["Size"]}
        except RefusedError:
            row = {"id": "", "size": 0}
        if not services or service["name"] in services:
            rows.append({"service": service["name"], "image": name, **row})
    if quiet:
        for ident in dict.fromkeys(row["id"].removeprefix("sha256:") for row in rows if row["id"]):
            click.echo(ident)
        return
    if shape == "table":
        rows = [row | {"id": row["id"][7:19], "size": bytes_text(row["size"])} for row in rows]
    show(rows, ("service", "image", "id", "size"), shape)
