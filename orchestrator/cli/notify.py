"""`pystack notify …`"""

from __future__ import annotations

import sys

import click

from orchestrator.cli.options import format_option

COLUMNS = ("id", "kind", "subject", "channel", "state", "attempts", "problem")


@click.group()
def notify() -> None:
    """Who gets notices (`notify:` in config.yml), and those that have not arrived."""


@notify.command("ls")
@format_option
def ls(shape: str) -> None:
    """Notices that have not arrived: those that are tried again, and those that were given up (dead)."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    found = Client(start=True).json("GET", "/v1/notify")
    if shape == "table":
        print("notices go to: " + ("; ".join(found["channels"]) or "nobody"), file=sys.stderr)
    show(found["deliveries"], COLUMNS, shape)


@notify.command("retry")
@click.argument("ids", nargs=-1)
def retry(ids: tuple[str, ...]) -> None:
    """Send notices again that have not arrived: those with the IDs, or all."""
    from orchestrator.cli.client import Client

    click.echo(f"{Client(start=True).json('POST', '/v1/notify/retry', body={'ids': ids})['retried']} are tried again")


@notify.command("test")
def test() -> None:
    """Send a test by each way. Exit status 1 if one does not arrive."""
    from orchestrator.cli.client import Client

    rows = Client(start=True).json("POST", "/v1/notify/test", body={})
    for row in rows:
        click.secho(f"{'✗' if row['problem'] else '✓'} {row['channel']}{': ' if row['problem'] else ''}{row['problem']}")
    sys.exit(1 if any(row["problem"] for row in rows) else 0)
