"""`pystack rebalance`"""

from __future__ import annotations

import click

from orchestrator.cli.options import format_option


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Show the moves, make none.")
@click.option("--max-moves", default=10, help="The disruption budget: at most so many moves, one at a time.")
@format_option
def rebalance(only_plan: bool, max_moves: int, shape: str) -> None:
    """Even out the nodes by moving tasks, each up before the next is moved."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events, show

    client = Client()
    if only_plan:
        rows = client.json("GET", "/v1/rebalance", query={"limit": max_moves})
        show(rows, ("stack", "tasks", "source", "target", "reason"), shape)
        return
    consume_events(client.events("/v1/rebalance", query={"limit": max_moves}), Progress("json" if shape == "json" else "auto"))
