"""`pystack pull`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, stack_options


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("-q", "--quiet", is_flag=True)
@click.option("--ignore-buildable", is_flag=True, help="Leave services with build: out.")
def pull(stack: StackOptions, services: tuple[str, ...], quiet: bool, ignore_buildable: bool) -> None:
    """Fetch the images of services."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.image import fetch
    from orchestrator.cli.output import Progress
    from orchestrator.errors import PystackError, Refused

    loaded = stack.load()
    client, shown = Client(start=True), Progress("quiet" if quiet else "auto")
    failed = []
    wanted = {
        s.container.image: s for s in loaded.stack.services
        if (not services or s.name in services) and not (s.build and ignore_buildable)
    }
    for image, service in wanted.items():
        try:
            fetch(client, image, shown)
        except Refused as error:
            if service.build is None:
                failed.append(f"{service.where}: image {image}: {error}")
    if failed:
        raise PystackError("\n".join(failed))
