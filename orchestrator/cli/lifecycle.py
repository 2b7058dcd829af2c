"""`pystack stop`, `start`, `restart`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, is_compose, progress_option, stack_options


def _act(
    stack: StackOptions,
    verb: str,
    services: tuple[str, ...],
    progress: str,
    timeout: float | None = None,
    *,
    deps: bool = True,
    wait: bool = False,
) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events
    from orchestrator.errors import RefusedError

    client, name = Client(start=True), stack.name()
    shown = Progress(progress)
    body = {"services": services, "timeout_s": timeout, "deps": deps, "begun": is_compose() and not wait}
    try:
        events = client.events(f"/v1/stacks/{name}/{verb}", body=body)
    except RefusedError as error:
        if error.status != 404 or verb == "start":
            raise
        stack.check_services(services)
        click.echo(f"No container to {verb}", err=True)  # which is not an error. Source: docker compose
        return
    consume_events(events, shown)


timeout_option = click.option(
    "-t", "--timeout", type=float, default=None, help="Seconds that containers have to end, instead of their stop_grace_period."
)


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
@click.option("--wait", is_flag=True, hidden=True)  # without, those of Docker Compose alone do not wait
@click.option("--wait-timeout", type=float, default=None, help="Seconds to wait for a task to be up.")
@progress_option
def start(stack: StackOptions, services: tuple[str, ...], progress: str, wait: bool, wait_timeout: float | None) -> None:
    """Start stopped tasks, each when what it depends on is as far as depends_on says."""
    _act(stack, "start", services, progress, wait_timeout, wait=wait)


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@timeout_option
@click.option("--no-deps", is_flag=True, help="Not those that ask, in depends_on, to be restarted with them.")
@progress_option
def restart(stack: StackOptions, services: tuple[str, ...], progress: str, timeout: float | None, no_deps: bool) -> None:
    """Stop and start tasks, each when what it depends on is as far as depends_on says."""
    _act(stack, "restart", services, progress, timeout, deps=not no_deps)
