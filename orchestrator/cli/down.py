"""`pystack down`"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, progress_option, stack_options

if TYPE_CHECKING:
    from orchestrator.server.events import Failure


@click.command()
@stack_options
@click.option("-v", "--volumes", is_flag=True, help="Remove the stack's volumes, with their data.")
@click.option("--rmi", type=click.Choice(["all", "local"]), help="Remove images: all, or those that were built.")
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
    from orchestrator.cli.client import Client, name_in_path
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
    if services:
        from orchestrator.cli.selection import of_stack

        tasks = [row["task"] for row in of_stack(client, name, services)]
        for event in client.events(f"/v1/stacks/{name}/rm", body={"tasks": tasks}):
            Progress(progress).event(event)
        return
    shown = Progress(progress)
    images: list[str] = []
    if rmi:
        from orchestrator.cli.rows import services as applied_services

        with contextlib.suppress(RefusedError):
            known = applied_services(client, name)
            images = [s["container"]["image"] for s in known.values() if rmi == "all" or "build" in s]
    steps = 0
    failed: Sequence[Failure] = ()
    for event in client.events(f"/v1/stacks/{name}/down", body={"volumes": volumes}):
        steps += isinstance(event, StepEvent)
        failed = event.failures if isinstance(event, DoneEvent) else failed
        shown.event(event)
    if not steps:
        click.echo(f'Warning: No resource found to remove for project "{name}".', err=True)
    _withdraw(stack)
    if failed:
        failures(failed)
    for image in dict.fromkeys(images):
        try:
            client.json("DELETE", f"{client.base}/images/{name_in_path(image)}")
            click.echo(f"remove image {image}", err=True)
        except RefusedError as error:
            click.echo(f"image {image} stays: {error}", err=True)
    if failed:
        raise SystemExit(1)


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
