"""`pystack system …` and `pystack version`"""

from __future__ import annotations

import json
import sys
from typing import IO

import click

from orchestrator import __version__
from orchestrator.cli.client import Client
from orchestrator.cli.options import format_option
from orchestrator.errors import UnreachableError


@click.group()
def system() -> None:
    """The server and its node."""


@system.command()
def info() -> None:
    """What the node is, as JSON."""
    click.echo(json.dumps(Client(start=True).engine("GET", "/info"), indent=2))


@system.command("dial-stdio", hidden=True)
@click.option("--docker", is_flag=True, help="To the node's Docker socket: the far end of DOCKER_HOST=ssh://…")
def dial_stdio(docker: bool) -> None:
    """Connect standard input and output to the server: the far end of PYSTACK_HOST=ssh://…"""
    import os
    from pathlib import Path

    from orchestrator.cli.endpoint import REMOTE, control_socket
    from orchestrator.cli.remote import dial_stdio as pump
    from orchestrator.cli.starting import start_server

    if docker:
        own = os.environ.get("PYSTACK_DOCKER_SOCKET", "")
        pump(own or str(Path(control_socket()).with_name("docker.sock")), hello=b"")
        return
    path = control_socket()
    if path.startswith(REMOTE):
        raise UnreachableError("PYSTACK_HOST of that host leads on to another one: name that one yourself")
    if not Path(path).exists():
        start_server(path)
    pump(path)


@system.command()
@format_option
def df(shape: str) -> None:
    """What images, containers and volumes take on disk."""
    from orchestrator.cli.output import bytes_text, show

    found = Client(start=True).engine("GET", "/system/df")
    up = ("running", "paused", "restarting", "starting", "stopping")
    images, containers, volumes = found["Images"], found["Containers"], found["Volumes"]
    rows = [
        {
            "type": "images",
            "total": len(images),
            "active": sum(i["InUse"] for i in images),
            "size": found["LayersSize"],
            "reclaimable": sum(i["Size"] for i in images if not i["InUse"]),
        },
        {
            "type": "containers",
            "total": len(containers),
            "active": sum(c["State"] in up for c in containers),
            "size": sum(c["SizeRw"] for c in containers),
            "reclaimable": sum(c["SizeRw"] for c in containers if c["State"] not in up),
        },
        {
            "type": "volumes",
            "total": len(volumes),
            "active": sum(bool(v["UsageData"]["RefCount"]) for v in volumes),
            "size": sum(v["UsageData"]["Size"] for v in volumes),
            "reclaimable": sum(v["UsageData"]["Size"] for v in volumes if not v["UsageData"]["RefCount"]),
        },
    ]
    if shape == "table":
        rows = [row | {key: bytes_text(row[key]) for key in ("size", "reclaimable")} for row in rows]
    show(rows, ("type", "total", "active", "size", "reclaimable"), shape)


@system.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container uses, not unnamed ones alone.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes that no container uses, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
def prune(everything: bool, volumes: bool, force: bool) -> None:
    """Remove stopped containers of no stack, and images that nothing uses."""
    from orchestrator.cli.output import bytes_text

    if not force and sys.stdin.isatty():
        click.confirm("remove stopped containers and unused images" + (" and volumes" if volumes else "") + "?", abort=True)
    client = Client(start=True)
    gone = client.engine("POST", "/containers/prune")["ContainersDeleted"] or []
    filters = json.dumps({"dangling": ["false" if everything else "true"]})
    images = client.engine("POST", "/images/prune", query={"filters": filters})
    click.echo(f"containers: {len(gone)}")
    click.echo(f"images: {sum('Untagged' in row or 'Deleted' in row for row in images['ImagesDeleted'] or [])}")
    if volumes:
        click.echo(f"volumes: {len(client.engine('POST', '/volumes/prune')['VolumesDeleted'] or [])}")
    click.echo(f"freed {bytes_text(images['SpaceReclaimed'])}")


@system.command()
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True, help="How long it is watched.")
@click.option("--node", default="local", metavar="NAME", help="The node whose agent is watched; without, the server's own.")
@click.option("--lines", type=click.IntRange(1), default=20, show_default=True, help="How many functions are shown.")
@click.option("-o", "--output", type=click.File("w"), help="Write the folded stacks here, for a flame graph.")
@format_option
def profile(seconds: int, node: str, lines: int, output: IO[str] | None, shape: str) -> None:
    """Where a live server or agent spends its time: the share of samples in each function, of those in which it worked."""
    from orchestrator.cli.output import show
    from orchestrator.cli.profile import functions

    client = Client(start=True, node=node)
    folded = client.request("POST", f"{client.base}/pystack/profile", query={"seconds": seconds}).read().decode()
    if output:
        output.write(folded)
        return
    show(functions(folded, lines), ("self", "total", "function"), shape)


@system.command()
def shutdown() -> None:
    """End the server; containers run on."""
    Client().json("POST", "/v1/shutdown")


@system.command()
def openapi() -> None:
    """The REST API's OpenAPI document."""
    from orchestrator.gitops import api as gitops
    from orchestrator.metrics import api as metrics
    from orchestrator.server.api.routes import ROUTES
    from orchestrator.server.openapi import document

    click.echo(json.dumps(document((*ROUTES, *gitops.ROUTES, *metrics.ROUTES)), indent=2))


@click.command()
@click.option("--short", is_flag=True, help="The client's alone.")
@click.option("-f", "--format", "shape", type=click.Choice(["pretty", "json"]), default="pretty")
def version(short: bool, shape: str) -> None:
    """Versions of the client and of the server."""
    if short:
        return click.echo(__version__)
    if shape == "json":
        return click.echo(json.dumps({"version": __version__}))
    click.echo(f"client {__version__}")
    try:
        found = Client().json("GET", "/v1/version")
        click.echo(f"server {found['version']} on {found['node']}")
    except UnreachableError:
        click.echo("server: none answers")
