"""`pystack ps`, `ls`, `images`, `events`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options, stream_format_option
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


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
    from orchestrator.cli.output import show

    del no_trunc
    name, status = stack.name(), status + states_of(filters)
    rows = Client().json("GET", f"/v1/stacks/{name}/tasks", query={"oneoff": int(everything)})
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
    show(rows, ("task", "service", "node", "image", "state", "ports", "addresses"), shape)


def states_of(filters: tuple[str, ...]) -> tuple[str, ...]:
    """The states that `--filter status=STATE` asks for. Raises UsageError."""
    if strange := [f for f in filters if not f.startswith("status=")]:
        raise click.UsageError(f"--filter {strange[0]}: write status=STATE")
    return tuple(f.partition("=")[2] for f in filters)


@click.command()
@format_option
@click.option("-a", "--all", "everything", is_flag=True, help="Those of which nothing runs too (the default).")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("--filter", "filters", multiple=True, metavar="name=PART", help="Only stacks whose name has this part.")
def ls(shape: str, everything: bool, quiet: bool, filters: tuple[str, ...]) -> None:
    """All stacks."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    del everything
    if strange := [f for f in filters if not f.startswith("name=")]:
        raise click.UsageError(f"--filter {strange[0]}: write name=PART")
    rows = [r for r in Client().json("GET", "/v1/stacks") if all(f.partition("=")[2] in r["stack"] for f in filters)]
    if quiet:
        for row in rows:
            click.echo(row["stack"])
        return
    show(rows, ("stack", "revision", "running", "wanted", "nodes", "updated"), shape)


@click.command()
@stack_options
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only the images' IDs.")
@click.argument("services", nargs=-1)
def images(stack: StackOptions, shape: str, quiet: bool, services: tuple[str, ...]) -> None:
    """Images that the stack's services use."""
    from orchestrator.cli.client import Client, name_in_path
    from orchestrator.cli.output import bytes_text, show
    from orchestrator.errors import RefusedError

    client, known = Client(), []
    try:
        known = client.json("GET", f"/v1/stacks/{stack.name()}")["stack"].get("services", [])
    except RefusedError as error:
        if error.status != 404:
            raise
        stack.check_services(services)
    rows = []
    for service in known:
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
    """The volumes of stack *name*, or those that *services* mount, with the nodes that have them. Raises PystackError."""
    filters = json.dumps({"label": [f"com.docker.compose.project={name}"]})
    nodes = [r["name"] for r in client.json("GET", "/v1/nodes") if r["state"] == "ready"]
    rows = [
        {"name": v["Name"], "driver": v["Driver"], "node": node, "mountpoint": v["Mountpoint"], "labels": v["Labels"] or {}}
        for node in nodes
        for v in client.at(node).engine("GET", "/volumes", query={"filters": filters})["Volumes"]
    ]
    if services:
        known = {s["name"]: s for s in client.json("GET", f"/v1/stacks/{name}")["stack"].get("services", [])}
        if strangers := set(services) - known.keys():
            raise PystackError(f"stack {name} has no service {', '.join(sorted(strangers))}")
        used = {m.get("source") for s in services for m in known[s]["container"].get("mounts", [])}
        rows = [row for row in rows if row["name"] in used]
    return rows


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
