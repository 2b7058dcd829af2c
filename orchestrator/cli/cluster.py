"""`pystack cluster backup` and `restore`: all of a cluster in one file, and a cluster from it on other machines."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.errors import PystackError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

BACK_S, NODES_S, POLL_S = 60.0, 60.0, 0.1
"""How long the server may take to start again, and its nodes to answer it; how often it is asked."""
T = TypeVar("T")
PASSPHRASE = "PYSTACK_PASSPHRASE"


@click.group()
def cluster() -> None:
    """The cluster as a whole."""


def _passphrase(file: str | None, *, confirm: bool) -> str:
    """From *file*, from the variable, or from a prompt."""
    if file:
        return Path(file).read_text().strip("\n")
    if given := os.environ.get(PASSPHRASE):
        return given
    asked: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return asked


passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False),
    help=f"The file's passphrase; else {PASSPHRASE}, or it is asked for.",
)


@cluster.command("backup")
@passphrase_option
@click.argument("file", type=click.Path(dir_okay=False))
def backup(passphrase_file: str | None, file: str) -> None:
    """Write all that makes the cluster to FILE, encrypted: stacks, secrets and their key, certificates, schedules, users.

    What volumes hold is not in it: that is in their own backups (`x-backup`)."""
    from orchestrator.cli.client import Client

    body = {"passphrase": _passphrase(passphrase_file, confirm=True)}
    raw = Client().request("POST", "/v1/cluster/backup", body=body).read()
    path, temporary = Path(file), Path(f"{file}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_bytes(raw)
    temporary.replace(path)
    click.echo(f"{len(raw)} bytes in {file}")


@cluster.command("restore")
@passphrase_option
@click.option("--node", "targets", multiple=True, metavar="[NAME=][USER@]HOST[:PORT]", help="A machine that becomes a node.")
@click.option("--no-volumes", is_flag=True, help="Leave the volumes empty; else their newest backups are brought back.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def restore(passphrase_file: str | None, targets: tuple[str, ...], no_volumes: bool, file: str) -> None:
    """Make this machine's empty cluster the one that FILE is a backup of: add machines as its nodes, with the labels that
    nodes of these names had, bring up all stacks, and bring back their volumes."""
    from orchestrator.cli.client import Client

    body = {
        "passphrase": _passphrase(passphrase_file, confirm=False),
        "data": base64.b64encode(Path(file).read_bytes()).decode(),
    }
    before = Client(start=True).json("GET", "/v1/version")["started"]
    found = Client().json("POST", "/v1/cluster/restore", body=body)
    client = _restarted_server(before)
    _nodes(client, found["nodes"], targets)
    failed = [name for name in found["stacks"] if not _up(client, name)]
    failed = [name for name in failed if not _up(client, name)]  # one may need what another has
    if not no_volumes:
        failed += [name for name in found["volumes"] if not _brought_back(client, name)]
    if failed:
        raise PystackError(f"not all came back: {', '.join(failed)}; the words for each are above")
    click.echo(f"{len(found['stacks'])} stacks run")


def _restarted_server(before: float) -> Client:
    """A client of the server that has read the new store."""
    from orchestrator.cli.client import Client

    def restarted() -> Client | None:
        try:
            client = Client(start=True)
            return client if client.json("GET", "/v1/version")["started"] != before else None
        except (UnreachableError, RefusedError, OSError):
            return None

    client = _poll(restarted, BACK_S)
    if client is None:
        raise PystackError(f"the server did not start again within {BACK_S:g} s: see its log")
    return client


def _poll(ask: Callable[[], T | None], within_s: float) -> T | None:
    """The first answer of *ask* that is not None, asked every POLL_S; None if there is none within *within_s* seconds."""
    end = time.monotonic() + within_s
    while (found := ask()) is None and time.monotonic() < end:
        time.sleep(POLL_S)
    return found


def _nodes(client: Client, known: list[dict[str, Any]], targets: tuple[str, ...]) -> None:
    """Add *targets*, and give all nodes the labels and taints that nodes of these names had."""
    for target in targets:
        name, equals, address = target.rpartition("=")
        client.json("POST", "/v1/nodes", body={"target": address, "name": name if equals else ""})
        click.echo(f"node {name or address}", err=True)
    there = _ready(client)
    for one in known:
        change = {"labels": one.get("labels", ()), "taints": one.get("taints", ())}
        if one["name"] in there and any(change.values()):
            client.json("PATCH", f"/v1/nodes/{one['name']}", body=change)
    gone = sorted(one["name"] for one in known if one["name"] not in there)
    if gone:
        click.echo(
            f"warning: there is no node {', '.join(gone)} now: what is bound to one by its name finds no place", err=True
        )


def _ready(client: Client) -> dict[str, dict[str, Any]]:
    """The nodes by name, once all answer; those that do not are named after NODES_S."""
    rows: dict[str, dict[str, Any]] = {}

    def silent() -> list[str]:
        rows.update({row["name"]: row for row in client.json("GET", "/v1/nodes")})
        return sorted(name for name, row in rows.items() if row["state"] != "ready")

    if _poll(lambda: None if silent() else True, NODES_S) is None:
        click.echo(f"warning: {', '.join(silent())} did not answer within {NODES_S:g} s: nothing is placed there", err=True)
    return rows


def _up(client: Client, name: str) -> bool:
    """Bring stack *name* up as it was. Whether all of it runs."""
    from orchestrator.cli.output import Progress, consume_events

    click.echo(f"stack {name}", err=True)
    revision = client.json("GET", f"/v1/stacks/{name}/history")[-1]["revision"]
    body = {"revision": revision, "options": {"message": "brought back from a backup of the cluster"}}
    return _done(lambda: consume_events(client.events(f"/v1/stacks/{name}/rollback", body=body), Progress("plain")))


def _brought_back(client: Client, name: str) -> bool:
    from orchestrator.cli.output import Progress, consume_events

    body = {"stop": True}
    return _done(lambda: consume_events(client.events(f"/v1/volumes/{name}/restore", body=body), Progress("plain")))


def _done(work: Any) -> bool:
    try:
        work()
    except SystemExit:
        return False
    except PystackError as error:
        click.echo(str(error), err=True)
        return False
    return True
