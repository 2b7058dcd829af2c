"""`pystack export`, `commit`, `push`: what a task holds as a tar or an image; a stack's images to their registries."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.stackfile.model import Stack


@click.command()
@stack_options
@click.option("-o", "--output", type=click.Path(dir_okay=False), default="-", help="The file; - for standard output.")
@click.option("--index", default=0, help="Which replica; the first that runs, if not given.")
@click.argument("service")
def export(stack: StackOptions, output: str, index: int, service: str) -> None:
    """Write a task's file system as a tar: its image and what it wrote, without volumes."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.selection import only

    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("a tar is nothing for a terminal: give a file with -o")
    client = Client()
    row = only(client, stack, service, index)
    at = client.at(row["node"])
    reply = at.request("GET", f"{at.base}/containers/{row['id']}/export")
    with click.open_file(output, "wb") as file:
        shutil.copyfileobj(reply, file, 1 << 20)


@click.command()
@stack_options
@click.option("-a", "--author", default="")
@click.option("-m", "--message", default="", help="Why, for the image's history.")
@click.option("-c", "--change", multiple=True, metavar="INSTRUCTION", help="CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL.")
@click.option("--pause/--no-pause", default=True, help="Freeze it meanwhile.")
@click.option("--index", default=0, help="Which replica; the first that runs, if not given.")
@click.argument("service")
@click.argument("name", required=False, default="")
def commit(
    stack: StackOptions, author: str, message: str, change: tuple[str, ...], pause: bool, index: int, service: str, name: str
) -> None:
    """Make an image, on the task's node, of what a task is now."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.selection import only

    client = Client()
    row = only(client, stack, service, index)
    query = {"container": row["id"], "repo": name, "author": author, "comment": message, "changes": change, "pause": int(pause)}
    click.echo(client.at(row["node"]).engine("POST", "/commit", query=query)["Id"])


@click.command()
@stack_options
@click.option("--ignore-push-failures", is_flag=True, help="Go on with the others.")
@click.option("--include-deps", is_flag=True, help="Those that the services need too.")
@click.option("-q", "--quiet", is_flag=True)
@click.argument("services", nargs=-1)
def push(stack: StackOptions, ignore_push_failures: bool, include_deps: bool, quiet: bool, services: tuple[str, ...]) -> None:
    """Send the images of services that have `build:` to their registries."""
    from orchestrator.cli.client import Client
    from orchestrator.errors import require_services
    from orchestrator.stackfile.graph import needed

    client, loaded = Client(start=True), stack.load(named=services)
    require_services(services, loaded.stack.name, (s.name for s in loaded.stack.services))
    if include_deps and services:
        services = tuple(needed(loaded.stack.services, services))
    push_images(client, loaded.stack, services, quiet=quiet, go_on=ignore_push_failures)


def push_images(client: Client, stack: Stack, services: tuple[str, ...], *, quiet: bool, go_on: bool = False) -> None:
    """Those of *services*, or of all, that are built and named; to *go_on* is to tell what failed. Raises PystackError."""
    from orchestrator.cli.client import name_in_path
    from orchestrator.cli.registry_login import headers_for
    from orchestrator.errors import PystackError

    named = {s.name for s in stack.services if s.container.image != f"{stack.name}-{s.name}"}
    wanted = [s for s in stack.services if s.build and s.name in named and (not services or s.name in services)]
    if not wanted:
        click.echo("nothing to push: no service has both build: and image:", err=True)
    for service in wanted:
        for name in dict.fromkeys((service.container.image, *(service.build.tags if service.build else ()))):
            try:
                for event in client.lines(
                    "POST", f"{client.base}/images/{name_in_path(name)}/push", headers=headers_for([name])
                ):
                    if not quiet and event.get("status"):
                        click.echo(f"{name}: {event.get('id', '')} {event['status']}", err=True)
            except PystackError as error:
                if not go_on:
                    raise
                click.secho(f"{name}: {error}", fg="red", err=True)
