"""`pystack autoscale …`"""

from __future__ import annotations

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options


@click.group()
def autoscale() -> None:
    """Services whose replicas follow what they use (`x-scale`)."""


@autoscale.command("ls")
@stack_options
@click.option("-a", "--all", "everything", is_flag=True, help="Of all stacks.")
@format_option
def ls(stack: StackOptions, everything: bool, shape: str) -> None:
    """How many replicas each has, and why."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows = Client().json("GET", "/v1/autoscale", query={} if everything else {"stack": stack.name()})
    show(rows, ("stack", "service", "replicas", "min", "max", "target", "paused", "reason"), shape)


def _switch(stack: StackOptions, service: str, verb: str) -> None:
    from orchestrator.cli.client import Client

    row = Client().json("POST", f"/v1/stacks/{stack.name()}/autoscale/{service}/{verb}")
    click.echo(f"{service}: {row['replicas']} replicas, {'paused' if row['paused'] else 'scaled'}")


@autoscale.command()
@stack_options
@click.argument("service")
def pause(stack: StackOptions, service: str) -> None:
    """Leave its replicas as they are; `scale` and `up --scale` do so too."""
    _switch(stack, service, "pause")


@autoscale.command()
@stack_options
@click.argument("service")
def resume(stack: StackOptions, service: str) -> None:
    """Scale it again."""
    _switch(stack, service, "resume")
