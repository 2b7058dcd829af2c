"""`pystack monitoring …`"""

from __future__ import annotations

import json

import click


@click.group()
def monitoring() -> None:
    """For Prometheus and Grafana. Metrics are at /metrics, tasks with metrics of their own (x-metrics) at /v1/sd."""


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
