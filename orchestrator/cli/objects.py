"""`pystack network …` and `pystack volume …`"""

from __future__ import annotations

import json
from typing import Any

import click

from orchestrator.cli.backups import volume_backup, volume_restore, volume_snapshots, volume_verify
from orchestrator.cli.client import Client
from orchestrator.cli.options import format_option, progress_option
from orchestrator.errors import PystackError, RefusedError


@click.group()
def network() -> None:
    """Networks of the node."""


@network.command("ls")
@format_option
def network_ls(shape: str) -> None:
    """List networks."""
    from orchestrator.cli.output import show

    found = Client(start=True).engine("GET", "/networks")
    rows = [
        {
            "name": n["Name"],
            "driver": n["Driver"],
            "internal": n["Internal"],
            "subnets": [p["Subnet"] for p in n["IPAM"]["Config"]],
        }
        for n in found
    ]
    show(rows, ("name", "driver", "internal", "subnets"), shape)


@network.command("inspect")
@click.argument("names", nargs=-1, required=True)
def network_inspect(names: tuple[str, ...]) -> None:
    """Everything about networks, as JSON."""
    client = Client(start=True)
    click.echo(json.dumps([client.engine("GET", f"/networks/{n}") for n in names], indent=2))


@network.command("create")
@click.option("--subnet", multiple=True)
@click.option("--internal", is_flag=True)
@click.option("-d", "--driver", default="bridge")
@click.option("-o", "--opt", multiple=True)
@click.argument("name")
def network_create(subnet: tuple[str, ...], internal: bool, driver: str, opt: tuple[str, ...], name: str) -> None:
    """Make a network that stacks can use as external."""
    body = {
        "Name": name,
        "Driver": driver,
        "Internal": internal,
        "Options": dict(o.partition("=")[::2] for o in opt),
        "IPAM": {"Config": [{"Subnet": s} for s in subnet]},
    }
    Client(start=True).engine("POST", "/networks/create", body=body)
    click.echo(name)


@network.command("rm")
@click.argument("names", nargs=-1, required=True)
def network_rm(names: tuple[str, ...]) -> None:
    """Remove networks."""
    client = Client(start=True)
    for name in names:
        client.engine("DELETE", f"/networks/{name}")
        click.echo(name)


@click.group()
def volume() -> None:
    """Volumes of all nodes."""


for command in (volume_backup, volume_snapshots, volume_restore, volume_verify):
    volume.add_command(command)


def _nodes(client: Client) -> list[tuple[str, Client]]:
    """Each node that answers, by name."""
    from orchestrator.cli.rows import ready_nodes

    return list(ready_nodes(client).items())


def _holders(client: Client, name: str) -> list[tuple[str, Client, Any]]:
    """The nodes that have volume *name*, with what they say of it. Raises PystackError where none has."""
    out = []
    for node, there in _nodes(client):
        try:
            out.append((node, there, there.engine("GET", f"/volumes/{name}")))
        except RefusedError as error:
            if error.status != 404:
                raise
    if not out:
        raise PystackError(f"there is no volume {name} on any node that answers: `pystack volume ls`")
    return out


@volume.command("ls")
@format_option
def volume_ls(shape: str) -> None:
    """List volumes, and the nodes that have them."""
    from orchestrator.cli.output import show

    rows = [
        {"name": v["Name"], "driver": v["Driver"], "node": node, "mountpoint": v["Mountpoint"]}
        for node, there in _nodes(Client(start=True))
        for v in there.engine("GET", "/volumes")["Volumes"]
    ]
    show(sorted(rows, key=lambda r: (r["name"], r["node"])), ("name", "driver", "node", "mountpoint"), shape)


@volume.command("inspect")
@click.argument("names", nargs=-1, required=True)
def volume_inspect(names: tuple[str, ...]) -> None:
    """Everything about volumes, as JSON: an object for each node that has one."""
    client = Client(start=True)
    found = [{**body, "Node": node} for name in names for node, _, body in _holders(client, name)]
    click.echo(json.dumps(found, indent=2))


@volume.command("create")
@click.argument("name", required=False, default="")
@click.option("-d", "--driver", default="local", help="local, nfs, cifs, glusterfs or sshfs.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="An option of the driver.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
def volume_create(name: str, driver: str, options: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Make a volume."""
    wanted = {
        "Name": name,
        "Driver": driver,
        "DriverOpts": dict(o.partition("=")[::2] for o in options),
        "Labels": dict(label.partition("=")[::2] for label in labels),
    }
    click.echo(Client(start=True).engine("POST", "/volumes/create", body=wanted)["Name"])


@volume.command("move")
@click.argument("name")
@click.argument("node")
@progress_option
def volume_move(name: str, node: str, progress: str) -> None:
    """Take a local volume to another node, with those who use it.

    They run on while its data go over, stand still for the last of it, and start on the other node. The old copy is deleted
    once they run."""
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client().events(f"/v1/volumes/{name}/move", body={"node": node}), Progress(progress))


@volume.command("rm")
@click.argument("names", nargs=-1, required=True)
def volume_rm(names: tuple[str, ...]) -> None:
    """Remove volumes and their data, on each node that has them."""
    client = Client(start=True)
    for name in names:
        for _, there, _ in _holders(client, name):
            there.engine("DELETE", f"/volumes/{name}")
        click.echo(name)


@volume.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Named ones too.")
def volume_prune(everything: bool) -> None:
    """Remove anonymous volumes that nothing uses."""
    filters = json.dumps({"all": ["true"]} if everything else {})
    for _, there in _nodes(Client(start=True)):
        for name in there.engine("POST", "/volumes/prune", query={"filters": filters})["VolumesDeleted"]:
            click.echo(name)
