"""`pystack stop`, `start`, `restart`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, stack_options


def _act(stack: StackOptions, verb: str, services: tuple[str, ...], progress: str, timeout: float | None = None) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    shown, body = Progress(progress), {"services": services, "timeout_s": timeout}
    consume_events(Client(start=True).events(f"/v1/stacks/{stack.name()}/{verb}", body=body), shown)


timeout_option = click.option(
    "-t", "--timeout", type=float, default=None, help="Seconds that containers have to end, instead of their stop_grace_period."
)
progress_option = click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@timeout_option
@progress_option
def stop(stack: StackOptions, services: tuple[str, ...], progress: str, timeout: float | None) -> None:
    """Stop tasks, in reverse order; `start` brings them back."""
    _act(stack, "stop", services, progress, timeout)


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@progress_option
def start(stack: StackOptions, services: tuple[str, ...], progress: str) -> None:
    """Start stopped tasks."""
    _act(stack, "start", services, progress)


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@timeout_option
@progress_option
def restart(stack: StackOptions, services: tuple[str, ...], progress: str, timeout: float | None) -> None:
    """Stop and start tasks."""
    _act(stack, "restart", services, progress, timeout)
