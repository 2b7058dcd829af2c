"""`pystack build`, and the building that `up` does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.model import Service, Stack


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("--no-cache", is_flag=True)
@click.option("--pull", is_flag=True, help="Fetch newer base images.")
@click.option("--build-arg", multiple=True, metavar="K=V")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")
def build(
    stack: StackOptions, services: tuple[str, ...], no_cache: bool, pull: bool, build_arg: tuple[str, ...],
    progress: str,
) -> None:
    """Build the images of services that have `build:`."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress

    loaded = stack.load()
    extra = dict(arg.partition("=")[::2] for arg in build_arg)
    build_services(
        Client(start=True), loaded.stack, services, always=True, progress=Progress(progress), no_cache=no_cache,
        pull=pull, args=extra,
    )


def build_services(
    client: Client, stack: Stack, services: tuple[str, ...], *, always: bool, progress: Progress,
    no_cache: bool = False, pull: bool = False, args: dict[str, str] | None = None,
) -> None:
    """Build what has `build:`, all of it or where the image is missing. Raises Refused with the builder's words."""
    from orchestrator.cli.client import name_in_path
    from orchestrator.errors import Refused

    for service in stack.services:
        if service.build is None or (services and service.name not in services):
            continue
        if not always and service.container.pull_policy != "build":
            try:
                client.engine("GET", f"/images/{name_in_path(service.container.image)}/json")
                continue
            except Refused:
                pass
        build_one(client, service, progress, no_cache=no_cache, pull=pull, args=args or {})


def build_one(
    client: Client, service: Service, progress: Progress, *, no_cache: bool, pull: bool, args: dict[str, str]
) -> None:
    from pathlib import Path

    from orchestrator.cli.context import pack
    from orchestrator.errors import PystackError

    wish = service.build
    assert wish is not None
    context = Path(wish.context)
    if not context.is_dir():
        raise PystackError(f"{service.where}: services.{service.name}.build: folder {context} does not exist")
    dockerfile = "Dockerfile.pystack-inline" if wish.dockerfile_inline else wish.dockerfile
    if not wish.dockerfile_inline and not (context / dockerfile).is_file():
        raise PystackError(
            f"{service.where}: services.{service.name}.build: {context / dockerfile} does not exist"
        )
    query: dict[str, Any] = {
        "dockerfile": dockerfile, "t": [service.container.image, *wish.tags],
        "buildargs": json.dumps(dict(wish.args) | args), "target": wish.target,
        "labels": json.dumps(dict(wish.labels)), "nocache": int(no_cache or wish.no_cache),
        "pull": int(pull or wish.pull), "networkmode": wish.network,
    }
    extra = {dockerfile: wish.dockerfile_inline.encode()} if wish.dockerfile_inline else {}
    body = pack(context, dockerfile, extra)
    if progress.mode == "plain":
        click.echo(f"build {service.container.image}", err=True)
    for event in client.lines("POST", f"{client.base}/build", query=query, body=body):
        if progress.mode == "json":
            click.echo(json.dumps({"event": "build", "service": service.name, **event}))
        elif progress.mode != "quiet" and event.get("stream"):
            click.echo(f"{service.name}: {event['stream']}", nl=False, err=True)
