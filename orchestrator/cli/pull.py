"""`pystack pull`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, stack_options


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("-q", "--quiet", is_flag=True)
@click.option("--ignore-pull-failures", is_flag=True, help="Say what failed, and end with 0.")
@click.option("--include-deps", is_flag=True, help="Those that the services need too.")
@click.option("--policy", type=click.Choice(["missing", "always"]), default="always", help="missing: leave what is there.")
@click.option("--ignore-buildable", is_flag=True, help="Leave services with build: out.")
def pull(
    stack: StackOptions,
    services: tuple[str, ...],
    quiet: bool,
    ignore_pull_failures: bool,
    include_deps: bool,
    policy: str,
    ignore_buildable: bool,
) -> None:
    """Fetch the images of services."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.image import fetch
    from orchestrator.cli.output import Progress
    from orchestrator.errors import PystackError, RefusedError
    from orchestrator.stackfile.graph import needed

    stack.check_services(services)
    loaded = stack.load(named=services)
    client, shown = Client(start=True), Progress("quiet" if quiet else "auto")
    failed = []
    if include_deps:
        services = tuple(needed(loaded.stack.services, services))
    wanted = {
        s.container.image: s
        for s in loaded.stack.services
        if (not services or s.name in services) and not (s.build and ignore_buildable)
    }
    there = client.engine("POST", "/pystack/images/ids", body=list(wanted)) if policy == "missing" else {}
    for image, service in wanted.items():
        if image in there:
            continue
        try:
            fetch(client, image, shown)
        except RefusedError as error:
            if service.build is None:
                failed.append(f"{service.where}: image {image}: {error}")
    if failed and ignore_pull_failures:
        click.echo("\n".join(failed), err=True)
    elif failed:
        raise PystackError("\n".join(failed))
