"""`pystack build`, and the building that `up` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.build_request import BuildOptions, build_one
from orchestrator.cli.options import StackOptions, is_compose, progress_option, stack_options

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
@progress_option
@click.option("--push", is_flag=True, help="Send them to their registries, while they are built.")
@click.option("-o", "--output", multiple=True, metavar="SPEC", help="type=local|tar|oci|docker|image|registry,dest=PATH.")
@click.option("--cache-from", multiple=True, metavar="SPEC", help="type=registry,ref=NAME or type=local,src=DIR.")
@click.option("--cache-to", multiple=True, metavar="SPEC", help="type=registry|local|inline; mode=max for all stages.")
@click.option("--provenance", default="", metavar="true|mode=max", help="A statement of origin beside the image.")
@click.option("--sbom", default="", metavar="true", help="A list of parts beside the image, as SPDX.")
@click.option("--annotation", multiple=True, metavar="K=V", help="Of the image's manifest.")
@click.option(
    "--ssh", multiple=True, metavar="NAME[=SOCKET]", help="An SSH agent that RUN sees; default: that of SSH_AUTH_SOCK."
)
@click.option("--on", "node", default="", metavar="NODE", help="Where to build: a node, or one of its labels.")
@click.option("--with-dependencies", is_flag=True, help="Those that the services need too.")
@click.option("-q", "--quiet", is_flag=True, help="No word of it.")
def build(
    stack: StackOptions,
    services: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    build_arg: tuple[str, ...],
    progress: str,
    push: bool,
    output: tuple[str, ...],
    cache_from: tuple[str, ...],
    cache_to: tuple[str, ...],
    provenance: str,
    sbom: str,
    annotation: tuple[str, ...],
    ssh: tuple[str, ...],
    node: str,
    with_dependencies: bool,
    quiet: bool,
) -> None:
    """Build the images of services that have `build:`."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.errors import require_services
    from orchestrator.stackfile.graph import needed

    loaded = stack.load(named=services)
    if is_compose() and not any(s.build and (not services or s.name in services) for s in loaded.stack.services):
        click.echo("WARN No services to build", err=True)
    client = Client(start=True)
    require_services(services, loaded.stack.name, (s.name for s in loaded.stack.services))
    if with_dependencies and services:
        services = tuple(needed(loaded.stack.services, services))
    options = BuildOptions(
        no_cache,
        pull,
        dict(arg.partition("=")[::2] for arg in build_arg),
        output,
        push,
        cache_from,
        cache_to,
        provenance,
        sbom,
        dict(pair.partition("=")[::2] for pair in annotation),
        ssh,
        node,
    )
    build_services(
        client,
        loaded.stack,
        services,
        always=True,
        progress=Progress("quiet" if quiet else progress),
        options=options,
    )


def build_services(
    client: Client,
    stack: Stack,
    services: tuple[str, ...],
    *,
    always: bool,
    progress: Progress,
    options: BuildOptions = BuildOptions(),
) -> None:
    """Build what has `build:`, all of it or where the image is missing. Raises RefusedError with the builder's words."""
    from orchestrator.cli.client import name_in_path
    from orchestrator.errors import RefusedError

    for service in _in_order(stack, services):
        assert service.build
        if not always and service.container.pull_policy != "build":
            try:
                client.engine("GET", f"/images/{name_in_path(service.container.image)}/json")
                continue
            except RefusedError:
                pass
        build_one(client, stack, service, progress, options)


def _in_order(stack: Stack, chosen: tuple[str, ...]) -> list[Service]:
    """What is to be built: *chosen*, or all, each after those whose images it is built from. Raises PystackError."""
    from orchestrator.errors import PystackError

    there = {s.name: s for s in stack.services if s.build}
    out: dict[str, Service] = {}

    def add(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise PystackError(f"{there[name].where}: images are built from each other: {' → '.join((*trail, name))}")
        one = there[name]
        assert one.build
        for other in one.build.after:
            if other not in there:
                at = f"{one.where}: services.{name}.build.additional_contexts"
                raise PystackError(f"{at}: service {other!r} has no build: of its own")
            add(other, (*trail, name))
        out[name] = one

    for name in there:
        if not chosen or name in chosen:
            add(name, ())
    return list(out.values())
