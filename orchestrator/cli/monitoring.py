"""`pystack monitoring …`"""

from __future__ import annotations

import json
import re

import click

DURATION = re.compile(r"[0-9]+(ms|[smhdwy])")
ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


def _duration(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not DURATION.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not a time of Prometheus: write 15d or 30s", context, parameter)
    return value


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    found = ADDRESS.fullmatch(value)
    if not found or not 0 < int(found[2]) < 1 << 16:
        raise click.BadParameter(f"{value!r}: write ADDRESS:PORT", context, parameter)
    return value


def _addresses(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_address(context, parameter, v) for v in values)


@click.group()
def monitoring() -> None:
    """For Prometheus and Grafana. Metrics are at /metrics, tasks with metrics of their own (x-metrics) at /v1/sd."""


@monitoring.command("up")
@click.option("--constraint", "constraints", multiple=True, metavar="TEXT", help="Its node, as in deploy; any if not given.")
@click.option("--listen", default="127.0.0.1:9090", show_default=True, callback=_address, help="Where it answers, on its node.")
@click.option("--retention", default="15d", show_default=True, callback=_duration, help="How long it keeps what it knows.")
@click.option("--interval", default="15s", show_default=True, callback=_duration, help="How often it asks.")
@click.option(
    "--alertmanager", "alertmanagers", multiple=True, metavar="ADDRESS:PORT", callback=_addresses, help="Gets alerts."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=9464, show_default=True, help="Of servers, for Prometheus alone."
)
@click.option("--package", type=click.Path(exists=True, dir_okay=False), help="Debian's prometheus, where apt has none.")
def up(
    constraints: tuple[str, ...],
    listen: str,
    retention: str,
    interval: str,
    alertmanagers: tuple[str, ...],
    port: int,
    package: str | None,
) -> None:
    """Run Prometheus on a node, or change how it runs: it asks for all metrics of the cluster, and has the alerts.

    Its image is made here, of Debian's package. Everybody who reaches it may read it: see it by
    `pystack port-forward -p pystack-monitoring prometheus 9090`."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events
    from orchestrator.cli.system_image import load
    from orchestrator.metrics.package import image

    client = Client(start=True)
    name, archive = image(package or "")
    load(client, name, archive)
    settings = {
        "image": name,
        "port": port,
        "listen": listen,
        "retention": retention,
        "interval": interval,
        "constraints": constraints,
        "alertmanagers": alertmanagers,
    }
    consume_events(client.events("/v1/monitoring", body=settings), Progress())


@monitoring.command("rm")
@click.option("-v", "--volumes", is_flag=True, help="What it knows goes too.")
def rm(volumes: bool) -> None:
    """Stop Prometheus; what it knows stays in its volume."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client(start=True).events("/v1/monitoring/down", body={"volumes": volumes}), Progress())


@monitoring.command("rules")
def rules() -> None:
    """Print alerts over the cluster's metrics: a rule file of Prometheus (JSON, which is YAML too)."""
    from orchestrator.metrics.rules import alerts

    click.echo(json.dumps(alerts(), indent=2))


@monitoring.command("dashboard")
def dashboard() -> None:
    """Print a dashboard for Grafana."""
    from orchestrator.metrics.rules import dashboard as made

    click.echo(json.dumps(made(), indent=2))
