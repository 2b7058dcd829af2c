"""`pystack why`, `why-not`"""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options
from orchestrator.cli.output import show_document
from orchestrator.errors import PystackError


@click.command()
@stack_options
@format_option
@click.argument("task")
def why(stack: StackOptions, shape: str, task: str) -> None:
    """Why a task is where it is: every node, and every reason."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.rows import tasks

    client, name = Client(), stack.name()
    rows = tasks(client, name)
    row = next((r for r in rows if task in (r["task"], r["task"].removeprefix(f"{name}-"))), None)
    row = row or next((r for r in rows if r["service"] == task), None)
    if row is None:
        raise PystackError(f"stack {name} has no task {task}; there is: {', '.join(r['task'] for r in rows) or 'nothing'}")
    _show(client.json("GET", f"/v1/stacks/{name}/services/{row['service']}/why", query={"task": row["task"]}), shape)


@click.command("why-not")
@stack_options
@format_option
@click.argument("service")
@click.argument("node", required=False)
def why_not(stack: StackOptions, shape: str, service: str, node: str | None) -> None:
    """Why a service has no further task on a node, or on any."""
    from orchestrator.cli.client import Client

    found = Client().json("GET", f"/v1/stacks/{stack.name()}/services/{service}/why")
    if node:
        found["candidates"] = [c for c in found["candidates"] if c["node"] == node]
        if not found["candidates"]:
            raise PystackError(f"there is no node {node}: `pystack node ls`")
    _show(found, shape)


def _show(found: dict[str, Any], shape: str) -> None:
    whole = {
        "task": found["task"],
        "node": found["node"],
        "score": found["score"],
        "scaling": found.get("scaling", ""),
        "preempted": found.get("preempted", ""),
        "candidates": [
            {"node": c["node"], "feasible": c["feasible"], "score": c["score"], "reasons": c["reasons"]}
            for c in found["candidates"]
        ],
    }
    if show_document(whole, shape):
        return
    if found["task"]:
        click.echo(f"{found['task']} is on {found['node'] or 'no node'}")
    if whole["preempted"]:
        click.echo(f"x-priority: it {whole['preempted']}")
    if whole["scaling"]:
        click.echo(f"x-scale: {whole['scaling']}")
    for candidate in whole["candidates"]:
        mark = "fits" if candidate["feasible"] else "does not fit"
        click.echo(f"{candidate['node']}: {mark}, score {candidate['score']}")
        for reason in candidate["reasons"]:
            click.echo(f"    {'✓' if reason['ok'] else '✗'} {reason['filter']}: {reason['detail']}")
