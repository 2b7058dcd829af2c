"""`pystack server init|join|ls|rm`: several servers, and the etcd that they share, without anything to set up by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.managed.settings import MemberFolder

IN_STEP_S = 120.0
"""How long a new member may take to get all that the others have."""
AGAIN_S = 0.5
_advertise = click.option(
    "--advertise", required=True, metavar="USER@HOST[:PORT]", help="How the other servers reach this host over SSH."
)


@click.command()
@_advertise
def init(advertise: str) -> None:
    """Give this host's server an etcd of its own, which other servers can join.

    What the server has kept in a file so far goes there. The server is stopped and started by systemd where it is a unit of it;
    otherwise stop it before."""
    from orchestrator.cli import service
    from orchestrator.managed import joining

    folder = _folder()
    with service.stopped("pystack") as units:
        count = joining.begin(folder, advertise)
    click.echo(
        f"this server has etcd of its own now, with {count} entries{units.advice()}; on each further host:\n"
        f"  pystack server join {advertise} --advertise USER@ITS-ADDRESS"
    )


@click.command()
@click.argument("server")
@_advertise
@click.option(
    "--replace", is_flag=True, help="Give up what this host's member has: it was removed, or its cluster is another now."
)
def join(server: str, advertise: str, replace: bool) -> None:
    """Make this host one of the servers of SERVER's cluster: USER@HOST, or any place that PYSTACK_HOST can name. Where
    there are several already, name all, with commas: the one that leads is asked.

    Its own server is stopped and started by systemd where it is a unit of it. It needs the program etcd, and nothing else."""
    import os
    import time

    from orchestrator.cli import service
    from orchestrator.cli.client import Client
    from orchestrator.managed import joining

    places = [place if "://" in place else f"ssh://{place}" for place in server.split(",")]
    os.environ["PYSTACK_HOST"] = ",".join(places)
    folder, leader = _folder(), Client()
    with service.stopped("pystack-agent", "pystack") as units:
        request = joining.prepare(folder, advertise, replace=replace)
        admitted = leader.request("POST", "/v1/servers", body={"name": request.name, "address": request.address}).read()
        admission = joining.decode(admitted)
        try:
            joining.start(folder, advertise, request, admission)
            _promote(leader, admission.id, time.monotonic() + IN_STEP_S)
        except BaseException:
            joining.give_up(folder)
            raise
        joining.finish(folder)
        units.again = ["pystack"] if units.again else []
    names = ", ".join(sorted(admission.members))
    click.echo(f"{request.name} is one of {len(admission.members)} servers: {names}{units.advice()}")


def _promote(leader: Client, member: str, until: float) -> None:
    """Let the new *member* vote as soon as it is in step. Raises PystackError."""
    import time

    while True:
        try:
            leader.request("POST", f"/v1/servers/{member}/promote").read()
        except PystackError as error:
            if "in sync" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(AGAIN_S)
        else:
            return


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="A table, or JSON.")
def ls(form: str) -> None:
    """List the servers, and how the member of etcd on each host is."""
    import json

    from orchestrator.cli.client import Client
    from orchestrator.cli.output import table

    rows = json.loads(Client().request("GET", "/v1/servers").read())
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [
        {
            "server": r["name"],
            "address": r["address"],
            "state": r.get("alarm") or r["state"],
            "leads": "yes" if r.get("leads") else "",
            "etcd": r.get("version", ""),
            "size": f"{r.get('size', 0) / (1 << 20):.1f} MiB",
        }
        for r in rows
    ]
    table(shown, ("server", "address", "state", "leads", "etcd", "size"))


@click.command()
@click.argument("server")
def rm(server: str) -> None:
    """Let SERVER go, which is gone or was stopped: another host can join in its place. Its node stays until `node rm`."""
    from orchestrator.cli.client import Client

    Client().request("DELETE", f"/v1/servers/{server}").read()
    click.echo(server)


def _folder() -> MemberFolder:
    """Raises PystackError unless this host can have a member."""
    import os

    from orchestrator.cli.starting import require_server_parts
    from orchestrator.managed.process import require_etcd
    from orchestrator.managed.settings import MemberFolder, own_places

    require_server_parts()
    require_etcd()
    if os.geteuid() != 0:
        raise PystackError("several servers need root, as other hosts reach this one")
    return MemberFolder(own_places()[0])
