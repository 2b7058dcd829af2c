"""`pystack events`: changes of tasks, as they happen."""

from __future__ import annotations

import json

import click

from orchestrator.cli.options import StackOptions, stack_options, stream_format_option
from orchestrator.errors import require_services


@click.command()
@stack_options
@click.option("--json", "as_json", is_flag=True, help="--format json.")
@stream_format_option
@click.argument("services", nargs=-1)
def events(stack: StackOptions, as_json: bool, shape: str, services: tuple[str, ...]) -> None:
    """Changes of tasks, as they come: of a stack's where one is named, or of some of its services; else of all."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import CONTROL
    from orchestrator.cli.rows import services as applied_services

    client = Client()
    named = services or any(stack.given[k] for k in ("file", "project_name", "project_directory"))
    name = stack.name() if named else ""
    if services:
        require_services(services, name, applied_services(client, name))
    for event in client.lines("GET", "/v1/events"):
        if (name and event.get("stack") != name) or (services and event.get("service") not in services):
            continue
        dead = "out of memory" if event.get("oom_killed") and event["state"] != "running" else ""
        words = f"{event['task']}: {event['state']} {event.get('health', '') or event.get('error', '') or dead}".rstrip()
        words = CONTROL.sub("", words)
        click.echo(json.dumps(event) if as_json or shape == "json" else words)
