"""`pystack volume backup`, `snapshots`, `restore` and `verify`."""

from __future__ import annotations

import click

from orchestrator.cli.options import format_option, progress_option


def _follow(path: str, progress: str, body: object = None) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client().events(path, body=body), Progress(progress))


@click.command("backup")
@click.argument("name")
@progress_option
def volume_backup(name: str, progress: str) -> None:
    """Back a volume up now, to where its `x-backup` says, beside the times that it says."""
    _follow(f"/v1/volumes/{name}/backup", progress)


@click.command("verify")
@click.argument("name")
@progress_option
def volume_verify(name: str, progress: str) -> None:
    """Bring the newest backup of a volume back to the side, compare what was written, and delete it again."""
    _follow(f"/v1/volumes/{name}/verify", progress)


@click.command("snapshots")
@click.argument("name")
@format_option
def volume_snapshots(name: str, shape: str) -> None:
    """The backups that there are of a volume, the oldest first."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    show(Client().json("GET", f"/v1/volumes/{name}/snapshots"), ("id", "time", "node"), shape)


@click.command("restore")
@click.argument("name")
@click.argument("snapshot", default="latest")
@click.option("--as", "into", default="", metavar="NEW", help="Beside the volume, as a new one of that name.")
@click.option("--node", default="", help="On this node: the volume, and who uses it, is there from then on.")
@click.option("--stop", is_flag=True, help="Stop who uses the volume, and start them when it is back.")
@progress_option
def volume_restore(name: str, snapshot: str, into: str, node: str, stop: bool, progress: str) -> None:
    """Bring a backup of a volume back, the newest unless SNAPSHOT names another: in place of what there is, or beside it."""
    _follow(f"/v1/volumes/{name}/restore", progress, {"snapshot": snapshot, "into": into, "node": node, "stop": stop})
