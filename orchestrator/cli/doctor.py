"""`pystack doctor`"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import format_option
from orchestrator.cli.output import show_document

if TYPE_CHECKING:
    from orchestrator.server.api.system import CheckRow


@click.command()
@click.option("--repair", is_flag=True, help="Put back what was changed behind pystack's back.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show what is well too.")
@click.option("--host", "bare", is_flag=True, help="Check a machine before anything is installed there: this one, or TARGETS.")
@click.argument("targets", nargs=-1, metavar="[[USER@]HOST[:PORT]…]")
@format_option
def doctor(repair: bool, everything: bool, bare: bool, targets: tuple[str, ...], shape: str) -> None:
    """Look at every layer of the networks on every node, and say which one is broken.

    With --host, say whether a machine can be a host of pystack's, before anything is installed there; TARGETS are asked over
    SSH."""
    from orchestrator.cli.client import Client

    if bare:
        from orchestrator.cli.host import check_hosts

        if repair:
            raise click.UsageError("--repair is for what pystack made: what --host finds is for you to do")
        sys.exit(check_hosts(targets, everything=everything, shape=shape))
    if targets:
        raise click.UsageError(f"{targets[0]}: hosts are named with --host alone")
    rows: list[CheckRow] = Client(start=True).json("GET", "/v1/doctor", query={"repair": "1"} if repair else {})
    wrong = [r for r in rows if not r["ok"]]
    if show_document(rows, shape):
        sys.exit(1 if wrong else 0)
    repairable = [r for r in rows if r["ok"] and (r["repaired"] or r["fix"])]
    for row in [*wrong, *(rows[len(wrong) :] if everything else repairable)]:
        click.secho(
            f"{'✓' if row['ok'] else '✗'} {row['check']}: {row['target']}: {row['detail']}", fg="green" if row["ok"] else "red"
        )
        if row["fix"]:
            click.echo(f"    {row['fix']}")
    click.echo(f"{len(rows) - len(wrong)} checks are well" + (f", {len(wrong)} are not" if wrong else ""))
    sys.exit(1 if wrong else 0)
