"""`pystack volumes`: the volumes of a stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, declared, format_option, stack_options
from orchestrator.errors import RefusedError, require_services

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


@click.command()
@stack_options
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.argument("services", nargs=-1)
def volumes(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """Volumes of the stack that there are, or of some of its services."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows = volume_rows(Client(), stack.name(), services)
    if quiet:
        for one in dict.fromkeys(row["name"] for row in rows):
            click.echo(one)
        return
    show(rows, ("name", "driver", "node"), shape)


def volume_rows(client: Client, name: str, services: tuple[str, ...]) -> list[dict[str, Any]]:
    """The volumes of stack *name*, or those that *services* mount, with the nodes that have them. Raises NoSuchServiceError."""
    from orchestrator.cli.rows import ready_nodes
    from orchestrator.cli.rows import services as applied_services

    filters = json.dumps({"label": [f"com.docker.compose.project={name}"]})
    rows = [
        {"name": v["Name"], "driver": v["Driver"], "node": node, "mountpoint": v["Mountpoint"], "labels": v["Labels"] or {}}
        for node, there in ready_nodes(client).items()
        for v in there.engine("GET", "/volumes", query={"filters": filters})["Volumes"]
    ]
    if services:
        try:
            known = applied_services(client, name)
        except RefusedError:
            known = {}  # nothing of it was ever brought up
        require_services(services, name, {*known, *declared(services)})
        used = {m.get("source") for s in services if s in known for m in known[s]["container"].get("mounts", [])}
        rows = [row for row in rows if row["name"] in used]
    return rows
