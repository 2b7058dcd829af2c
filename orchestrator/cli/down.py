"""`pystack down`"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from orchestrator.cli.options import StackOptions, is_compose, progress_option, stack_options

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.events import Failure


@click.command()
@stack_options
@click.option("-v", "--volumes", is_flag=True, help="Remove the stack's volumes, with their data.")
@click.option(
    "--rmi",
    type=click.Choice(["all", "local"]),
    help="Remove images: all, or those that were built and have no name of their own.",
)
@click.option("--remove-orphans", is_flag=True, hidden=True)  # nothing of a stack stays anyhow
@click.option("-t", "--timeout", type=float, default=None, help="Seconds that containers have to end, instead of their own.")
@click.argument("services", nargs=-1)
@progress_option
def down(
    stack: StackOptions,
    volumes: bool,
    rmi: str | None,
    timeout: float | None,
    services: tuple[str, ...],
    progress: str,
    remove_orphans: bool,
) -> None:
    """Stop and remove the stack, or some of its services, in reverse order. Volumes stay unless -v is given."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, failures
    from orchestrator.errors import RefusedError
    from orchestrator.server.events import DoneEvent, StepEvent

    del remove_orphans
    client = Client(start=True)
    name = stack.name()
    if timeout is not None:
        with contextlib.suppress(RefusedError):  # it may not be there
            for event in client.events(f"/v1/stacks/{name}/stop", body={"services": services, "timeout_s": timeout}):
                del event
    shown = Progress(progress)
    if services:
        from orchestrator.cli.selection import of_stack

        tasks = [row["task"] for row in of_stack(client, name, services)]
        if not tasks:
            return click.echo(f'Warning: No resource found to remove for project "{name}".', err=True)
        for event in client.events(f"/v1/stacks/{name}/rm", body={"tasks": tasks}):
            shown.event(event)
        return
    images: list[str] = []
    if rmi:
        images = [
            s.image for s in _with_images(client, stack) if rmi == "all" or (s.built and s.image == f"{name}-{s.service}")
        ]
    steps = 0
    failed: Sequence[Failure] = ()
    for event in client.events(f"/v1/stacks/{name}/down", body={"volumes": volumes}):
        steps += isinstance(event, StepEvent)
        failed = event.failures if isinstance(event, DoneEvent) else failed
        shown.event(event)
    if not steps and not images:
        click.echo(f'Warning: No resource found to remove for project "{name}".', err=True)
    _withdraw(stack)
    if failed:
        failures(failed)
    for image in dict.fromkeys(images):
        _remove_image(client, image)
    if failed:
        raise SystemExit(1)


class _Imaged(NamedTuple):
    """A service's image, and whether it is built."""

    service: str
    image: str
    built: bool


def _with_images(client: Client, stack: StackOptions) -> list[_Imaged]:
    """The images of the services, as they were last applied or, of a stack that is gone, as the file has them."""
    from orchestrator.cli.rows import services as applied_services
    from orchestrator.errors import PystackError, RefusedError

    try:
        known = applied_services(client, stack.name())
        return [_Imaged(name, s["container"]["image"], "build" in s) for name, s in known.items()]
    except RefusedError:
        pass
    try:
        return [_Imaged(s.name, s.container.image, bool(s.build)) for s in stack.load(quiet=True).stack.services]
    except PystackError:
        return []  # no file says it


def _remove_image(client: Client, image: str) -> None:
    from orchestrator.cli.client import name_in_path
    from orchestrator.cli.compose_progress import say
    from orchestrator.errors import RefusedError

    try:
        client.json("DELETE", f"{client.base}/images/{name_in_path(image)}")
    except RefusedError as error:
        click.echo(f"image {image} stays: {error}", err=True)
        return
    if is_compose():
        say("Image", image, "Removed")
    else:
        click.echo(f"remove image {image}", err=True)


def _withdraw(stack: StackOptions) -> None:
    """Tell providers that their services went; who names the stack by -p alone may have no file to say which they are."""
    from orchestrator.errors import PystackError

    try:
        loaded = stack.load(quiet=True)
    except PystackError:
        return
    if loaded.providers:
        from orchestrator.cli.providers import stop_providers

        stop_providers(loaded)
